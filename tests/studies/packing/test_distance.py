"""Distances before training, against forward passes with masks and positions written by hand."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from posttrain.models import reward_model
from posttrain.models.float64 import compute_in_double
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.studies.packing import distance as packing_distance
from posttrain.studies.packing.distance import distances

INEXACT = ("causal attention", "causal", "running positions")
LABELS = ["0", "1-16", "17-64", "65-256", "over 256"]


@pytest.fixture(scope="module")
def groups(tiny_groups):
    """Two groups of two responses and two of three."""
    by_size = {count: [g for g in tiny_groups if len(g.responses) == count][:2] for count in (2, 3)}
    return [by_size[2][0], *by_size[3], by_size[2][1]]


@pytest.fixture(scope="module")
def table(tiny_checkpoint, groups):
    return distances(tiny_checkpoint, groups, resamples=100)


def value(table, **where):
    found = table
    for column, wanted in where.items():
        found = found[found[column] == wanted]
    assert len(found) == 1
    return found.iloc[0]


def states(model, prompt, responses, *, causal, running):
    """Last hidden state of each response of one row, token by token as a layout says."""
    parts = [0] * len(prompt)
    positions = list(range(len(prompt)))
    ends = []
    for number, response in enumerate(responses, start=1):
        start = len(positions) if running else len(prompt)
        parts += [number] * len(response)
        positions += range(start, start + len(response))
        ends.append(len(parts) - 1)
    mask = torch.zeros(len(parts), len(parts), dtype=torch.bool)
    for query, part in enumerate(parts):
        for key in range(query + 1):
            mask[query, key] = causal or parts[key] in (0, part)
    ids = torch.tensor([*prompt, *(token for response in responses for token in response)])
    with torch.no_grad():
        found = model.model(
            input_ids=ids[None],
            attention_mask=mask[None, None],
            position_ids=torch.tensor(positions)[None],
            use_cache=False,
        )
    return found.last_hidden_state[0, ends]


def directly(model, groups, layout):
    """Squared shifts by slot and by preceding tokens, and squared distances of two responses."""
    causal, running = layout in ("causal attention", "causal"), layout != "causal attention"
    by_slot, by_preceding, apart = {}, {}, []
    for group in groups:
        count = len(group.responses)
        alone = [
            states(model, group.prompt, [response], causal=True, running=True)[0]
            for response in group.responses
        ]
        for one in range(count):
            for other in range(one):
                apart.append(float((alone[one] - alone[other]).square().sum()))
        for start in range(count):
            order = [*range(start, count), *range(start)]
            row = [group.responses[k] for k in order]
            found = states(model, group.prompt, row, causal=causal, running=running)
            preceding = 0
            for slot, k in enumerate(order):
                shift = float((found[slot] - alone[k]).square().sum())
                by_slot.setdefault(str(slot + 1), []).append(shift)
                label = LABELS[sum(preceding >= edge for edge in (1, 17, 65, 257))]
                by_preceding.setdefault(label, []).append(shift)
                preceding += len(group.responses[k])
    return by_slot, by_preceding, apart


def mean(values):
    return sum(values) / len(values)


def test_the_table_has_a_row_for_every_slot_and_range(table, groups):
    assert list(table.columns) == [
        "layout", "by", "value", "responses", "estimate", "low", "high",
    ]  # fmt: skip
    assert set(table["layout"]) == set(INEXACT)
    assert set(table["by"]) == {"slot", "preceding tokens"}
    for layout in INEXACT:
        part = table[table["layout"] == layout]
        assert [*part.loc[part["by"] == "slot", "value"]] == ["1", "2", "3"]
        # Each group of K responses is laid out K times, so K responses take each of its K slots.
        assert [*part.loc[part["by"] == "slot", "responses"]] == [10, 10, 6]
        labels = [*part.loc[part["by"] == "preceding tokens", "value"]]
        assert labels == [label for label in LABELS if label in labels]
        assert part.loc[part["by"] == "preceding tokens", "responses"].sum() == 26


def test_the_first_slot_is_a_separate_row(table):
    for layout in INEXACT:
        for by, first in (("slot", "1"), ("preceding tokens", "0")):
            row = value(table, layout=layout, by=by, value=first)
            assert row["responses"] == 10
            assert 0 <= row["estimate"] <= row["high"] < 1e-12
    later = table[~table["value"].isin(["0", "1"])]
    assert (later["estimate"] > 1e-3).all()
    assert (later["low"] <= later["estimate"]).all()
    assert (later["estimate"] <= later["high"]).all()


@pytest.mark.parametrize("layout", INEXACT)
def test_distances_are_those_of_separate_forward_passes(layout, tiny_checkpoint, table, groups):
    model, _ = reward_model.load(tiny_checkpoint)
    compute_in_double(model)
    by_slot, by_preceding, apart = directly(model, groups, layout)
    for by, expected in (("slot", by_slot), ("preceding tokens", by_preceding)):
        assert set(table.loc[table["by"] == by, "value"]) == set(expected)
        for label, shifts in expected.items():
            row = value(table, layout=layout, by=by, value=label)
            assert row["responses"] == len(shifts)
            distance = math.sqrt(mean(shifts) / mean(apart))
            assert row["estimate"] == pytest.approx(distance, rel=1e-9, abs=1e-12)


def test_a_single_group_has_no_interval(tiny_checkpoint, groups):
    for group in groups[:2]:
        table = distances(tiny_checkpoint, [group], resamples=10)
        assert table["low"].tolist() == pytest.approx(table["estimate"].tolist())
        assert table["high"].tolist() == pytest.approx(table["estimate"].tolist())
        slots = table[table["by"] == "slot"]
        count = len(group.responses)
        assert slots["responses"].tolist() == [count] * 3 * count
        model, _ = reward_model.load(tiny_checkpoint)
        compute_in_double(model)
        by_slot, _, apart = directly(model, [group], "causal")
        row = value(table, layout="causal", by="slot", value="2")
        distance = math.sqrt(mean(by_slot["2"]) / mean(apart))
        assert row["estimate"] == pytest.approx(distance, rel=1e-9)


def test_every_response_takes_every_slot_once(monkeypatch, tiny_checkpoint, groups):
    laid_out = []
    lay_out = packing_distance.lay_out

    def record(given, layout, **options):
        laid_out.append((layout, *given))
        return lay_out(given, layout, **options)

    monkeypatch.setattr(packing_distance, "lay_out", record)
    distances(tiny_checkpoint, groups, resamples=2)
    taken = Counter(
        (layout, original.prompt, place, slot)
        for layout, group in laid_out
        for original in groups
        if original.prompt == group.prompt and layout.rows == "single"
        for slot, place in enumerate(group.places)
    )
    assert set(taken.values()) == {1}
    assert len(taken) == 3 * (2 * 2 * 2 + 2 * 3 * 3)
    for _, group in laid_out:
        (original,) = (one for one in groups if one.prompt == group.prompt)
        # Responses and their places move together.
        assert group.responses == tuple(original.responses[place] for place in group.places)


def test_which_rotation_is_given_does_not_matter(tiny_checkpoint, table, groups):
    turned = [
        replace(group, responses=(*group.responses[1:], group.responses[0])) for group in groups
    ]
    found = distances(tiny_checkpoint, turned, resamples=100)
    assert found["estimate"].tolist() == pytest.approx(table["estimate"].tolist(), abs=1e-12)


def test_ranges_of_preceding_tokens_at_their_boundaries(tiny_checkpoint):
    groups = [
        TokenizedGroup((7, 8, 9), ((10, 11) * (short // 2) + (12,) * (short % 2), (13,) * long))
        for short, long in ((1, 16), (16, 17), (64, 65), (256, 257))
    ]
    table = distances(tiny_checkpoint, groups, resamples=5)
    for layout in INEXACT:
        part = table[(table["layout"] == layout) & (table["by"] == "preceding tokens")]
        assert [*part["value"]] == LABELS
        assert [*part["responses"]] == [8, 3, 2, 2, 1]
