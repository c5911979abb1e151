"""Rows before any training: equality with separate rows, tokens, padding, and their record."""

import math
from dataclasses import asdict, replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import logsigmoid

from posttrain.evidence import records
from posttrain.models import reward_model
from posttrain.models.float64 import compute_in_double
from posttrain.rows.layout import LAYOUTS, Layout, lay_out
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.studies.common import groups as study_groups
from posttrain.studies.common.groups import load_groups
from posttrain.studies.packing import rows
from posttrain.studies.packing.distance import distances
from posttrain.studies.packing.rows import (
    STUDY,
    WAYS,
    RowSettings,
    equality,
    padding,
    token_table,
)

EXACT_WAYS = ["exact row", "exact, shared rows", "separate, shared rows"]
OTHER_WAYS = [
    "isolated, but running positions", "restarting, but causal attention", "causal row",
]  # fmt: skip


@pytest.fixture(scope="module")
def groups(tiny_groups):
    """Groups of two and of three responses."""
    pairs, triples = (
        [group for group in tiny_groups if len(group.responses) == count] for count in (2, 3)
    )
    return [*pairs[:2], triples[0], pairs[2], triples[1]]


@pytest.fixture(scope="module")
def table(tiny_checkpoint, groups):
    return equality(tiny_checkpoint, groups)


def test_the_ways_that_are_exact_are_known():
    assert list(WAYS) == [*EXACT_WAYS, *OTHER_WAYS]
    assert [way for way, (layout, _) in WAYS.items() if layout.is_exact] == EXACT_WAYS
    assert WAYS["causal row"] == (Layout("single", "causal", "running"), False)


def test_exact_ways_equal_separate_rows_and_the_others_do_not(table):
    assert list(table.columns) == ["way", "scores", "gradient", "rows", "tokens"]
    assert [*table["way"]] == ["separate rows", *EXACT_WAYS, *OTHER_WAYS]
    found = table.set_index("way")[["scores", "gradient"]]
    assert not found.loc["separate rows"].any()
    assert (found.loc[EXACT_WAYS] < 1e-10).all(axis=None)
    assert (found.loc[OTHER_WAYS] > 1e-3).all(axis=None)


def test_rows_and_tokens_are_counted_with_padding(table, groups):
    found = table.set_index("way")
    separate = [len(g.prompt) + len(response) for g in groups for response in g.responses]
    assert found.loc["separate rows", "rows"] == len(separate) == 12
    assert found.loc["separate rows", "tokens"] == 12 * max(separate)
    for way in ("exact row", *OTHER_WAYS):
        assert found.loc[way, "rows"] == len(groups)
        assert found.loc[way, "tokens"] == len(groups) * max(group.total for group in groups)
    # All fit into one row, which has no padding.
    assert found.loc["exact, shared rows", "rows"] == 1
    assert found.loc["exact, shared rows", "tokens"] == sum(g.total for g in groups)
    assert found.loc["separate, shared rows", "rows"] == 1
    assert found.loc["separate, shared rows", "tokens"] == sum(separate)


def test_differences_of_a_causal_row_are_those_of_direct_computation(
    tiny_checkpoint, table, groups
):
    model, tokenizer = reward_model.load(tiny_checkpoint)
    compute_in_double(model)
    found = {}
    for name, layout in (("separate", LAYOUTS["separate"]), ("causal", WAYS["causal row"][0])):
        by_group = [
            reward_model.forward_scores(
                model, lay_out([group], layout, pad_token_id=tokenizer.pad_token_id)
            )
            for group in groups
        ]
        differences = torch.stack(
            [
                scores[winner] - scores[loser]
                for scores in by_group
                for winner, loser in combinations(range(len(scores)), 2)
            ]
        )
        gradient = torch.autograd.grad(-logsigmoid(differences).mean(), [*model.parameters()])
        vector = torch.cat([part.flatten() for part in gradient])
        found[name] = torch.cat(by_group).detach(), differences.detach(), vector
    scores, differences, gradient = found["separate"]
    moved, _, other = found["causal"]
    assert len(differences) == 3 + 2 * 3
    row = table.set_index("way").loc["causal row"]
    apart = math.sqrt(float(differences.square().mean()))
    assert row["scores"] == pytest.approx(float((moved - scores).abs().max()) / apart, rel=1e-9)
    turned = float((other - gradient).norm() / gradient.norm())
    assert row["gradient"] == pytest.approx(turned, rel=1e-9)


def test_gradients_are_optional(tiny_checkpoint, table, groups):
    plain = equality(tiny_checkpoint, groups, gradients=False)
    assert plain["gradient"].isna().all()
    assert not table["gradient"].isna().any()
    rest = ["way", "rows", "tokens"]
    assert plain[rest].equals(table[rest])
    assert plain["scores"].tolist() == pytest.approx(table["scores"].tolist(), abs=1e-12)


def test_padding_of_one_batch_by_hand():
    groups = [
        TokenizedGroup((1,) * 4, ((2,), (3,) * 3)),
        TokenizedGroup((1,) * 2, ((2,) * 5, (3,), (4,) * 2)),
    ]
    found = padding(groups, batch_groups=2, pack_length=20)
    assert list(found.columns) == ["method", "tokens", "slots", "padding"]
    # Separate rows of 5, 7, 7, 3 and 4 tokens; single rows of 8 and of 10.
    assert [*found.itertuples(index=False, name=None)] == [
        ("separate rows", 26, 5 * 7, pytest.approx(9 / 35)),
        ("exact row", 18, 2 * 10, pytest.approx(2 / 20)),
        ("exact, shared rows", 18, 18, 0),
    ]
    # Too little room for both: as without sharing.
    found = padding(groups, batch_groups=2, pack_length=17).set_index("method")
    assert found.loc["exact, shared rows", "slots"] == found.loc["exact row", "slots"] == 20


def test_padding_goes_through_all_groups_in_random_order():
    groups = [TokenizedGroup((1,), ((2,) * (k + 1), (3,))) for k in range(10)]
    alone = padding(groups, batch_groups=1, pack_length=20).set_index("method")
    # A batch of one group pads its separate rows alone.
    assert alone["tokens"].tolist() == [10 * 3 + 55, 10 * 2 + 55, 10 * 2 + 55]
    assert alone["slots"].tolist() == [sum(2 * (k + 2) for k in range(10)), 75, 75]
    whole = padding(groups, batch_groups=100, pack_length=20).set_index("method")
    assert whole["slots"].tolist()[:2] == [20 * 11, 10 * 12]
    # Four, four and what is left, drawn from all sizes: the longest of a batch decides.
    order = np.random.default_rng(3).permutation(10)
    batches = [order[:4], order[4:8], order[8:]]
    found = padding(groups, batch_groups=4, pack_length=20, seed=3).set_index("method")
    assert found.loc["exact row", "slots"] == sum(
        len(batch) * (max(batch) + 3) for batch in batches
    )
    assert found.loc["separate rows", "slots"] == sum(
        2 * len(batch) * (max(batch) + 2) for batch in batches
    )
    slots = {padding(groups, batch_groups=4, pack_length=20, seed=s)["slots"][1] for s in range(6)}
    assert len(slots) > 1
    default = padding(groups, batch_groups=4, pack_length=20)
    assert default.equals(padding(groups, batch_groups=4, pack_length=20, seed=0))


def test_padding_needs_room_for_every_group():
    groups = [TokenizedGroup((1,) * 4, ((2,), (3,) * 3))]
    with pytest.raises(ValueError, match="document 0 has 8 tokens, more than pack_length=7"):
        padding(groups, batch_groups=1, pack_length=7)


def test_shared_rows_have_room_for_the_largest_group(tiny_checkpoint):
    long = TokenizedGroup((7,) * 500, ((8,) * 300, (9,) * 300))
    short = TokenizedGroup((7,) * 5, ((8,) * 3, (9,) * 3))
    table = equality(tiny_checkpoint, [long, short], gradients=False).set_index("way")
    assert table.loc["exact, shared rows", ["rows", "tokens"]].tolist() == [2, 2200]


def test_tokens_by_hand():
    groups = [
        TokenizedGroup((1,) * 4, ((2,), (3,) * 3)),
        TokenizedGroup((1,) * 8, ((2,) * 2, (3,) * 2)),
        TokenizedGroup((1,) * 10, ((2,) * 3, (3,) * 4, (5,) * 5)),
        TokenizedGroup((1,) * 6, ((2,) * 2, (3,) * 4)),
    ]
    table = token_table(groups)
    assert [*table.columns] == [
        "responses", "share", "prompt", "response", "separate", "single", "saving",
    ]  # fmt: skip
    pairs, triples = table.itertuples(index=False, name=None)
    separate, single = (12 + 20 + 18) / 3, (8 + 12 + 12) / 3
    assert pairs == pytest.approx((2, 0.75, 6, 14 / 6, separate, single, separate / single))
    assert triples == pytest.approx((3, 0.25, 10, 4, 42, 22, 42 / 22))
    assert token_table(groups[2:3])["share"].tolist() == [1]


SETTINGS = RowSettings(
    groups=40, batch_size=8, pack_length=120, distance_groups=5, equality_groups=3, resamples=20
)


@pytest.fixture(scope="module")
def record(tiny_checkpoint):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_groups.embedded, "tiny", lambda: tiny_checkpoint)
        return STUDY.run("simulator", profile="test", settings=SETTINGS)


def test_a_record_holds_what_needs_no_training(record, tiny_checkpoint, tmp_path):
    found = load_groups("simulator", tiny_checkpoint, SETTINGS)
    assert (record.study, record.source, record.profile) == ("rows", "simulator", "test")
    assert record.settings == asdict(SETTINGS)
    assert record.data == found.account
    assert list(record.tables) == ["tokens", "padding", "equality", "distances"]
    assert record.tables["tokens"].equals(token_table(found.tokens))
    expected = padding(found.tokens, batch_groups=8, pack_length=120)
    assert record.tables["padding"].equals(expected)
    path = records.save(record, tmp_path)
    assert path.name == "rows-simulator.json"
    for name, table in records.load(path).tables.items():
        pd.testing.assert_frame_equal(
            record.tables[name], table, rtol=1e-5, check_dtype=False, check_index_type=False
        )


def test_models_are_compared_on_random_groups(record, tiny_checkpoint):
    tokens = load_groups("simulator", tiny_checkpoint, SETTINGS).tokens
    compared = [tokens[i] for i in np.random.default_rng(SETTINGS.data_seed).permutation(40)[:5]]
    assert compared != tokens[:5]
    for name, expected in (
        ("distances", distances(tiny_checkpoint, compared, resamples=20)),
        ("equality", equality(tiny_checkpoint, compared[:3])),
    ):
        pd.testing.assert_frame_equal(record.tables[name], expected, atol=1e-10)


def test_every_source_has_the_same_settings(monkeypatch):
    assert STUDY.settings_for("simulator") is STUDY.settings_for("seeda") is RowSettings
    seen = []

    def stop(source, checkpoint, settings):
        seen.append((source, settings))
        raise ValueError("stopped here")

    monkeypatch.setattr(rows, "checkpoint_for", lambda source: source)
    monkeypatch.setattr(rows, "load_groups", stop)
    with pytest.raises(ValueError, match="stopped here"):
        STUDY.run("mine")
    assert seen == [("mine", RowSettings())]


@pytest.mark.parametrize(
    "name", ["groups", "batch_size", "distance_groups", "equality_groups", "resamples"]
)
def test_settings_below_one_are_refused(name):
    assert getattr(replace(SETTINGS, **{name: 1}), name) == 1
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        replace(SETTINGS, **{name: 0})
