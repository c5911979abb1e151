"""The study of edited responses: what is trained on what, and a record that can be read again."""

import math
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

from posttrain import records
from posttrain.preferences import Message, RankedGroup
from posttrain.reading import write_groups
from posttrain.rows import LAYOUTS
from posttrain.sources.simulator import simulate
from posttrain.studies import edits
from posttrain.studies import groups as study_groups
from posttrain.studies.edits import (
    Bench,
    EditSettings,
    choose,
    depends_on_edits,
    prepare,
    run,
    train_and_test,
    tune,
)
from posttrain.studies.edits_outcome import ARMS, COLUMNS, CONTRASTS, IGNORE, RATED, Cell

SETTINGS = EditSettings(
    sizes=[12],
    shares=[0.5, 1.0],
    test_size=10,
    seeds=2,
    learning_rates=[1e-3, 1e-2],
    tuning_seeds=2,
    batch_size=8,
    groups=80,
    resamples=10,
)
HAS_EDIT = np.array([True, False, True, True, False, False, True, True, False, True])


@pytest.fixture(scope="module")
def bench(tiny_checkpoint):
    return Bench(tiny_checkpoint, prepare("simulator", tiny_checkpoint, SETTINGS), SETTINGS)


@pytest.fixture
def tiny(monkeypatch, tiny_checkpoint):
    monkeypatch.setattr(study_groups.checkpoints, "tiny", lambda: tiny_checkpoint)


@pytest.fixture
def stand_in(monkeypatch):
    """Replaces training and scoring; lists what was trained, and scores as a test says."""
    trainings = []

    def use(score):
        def train(checkpoint, groups, layout, recipe, *, objective, learning_rate, seed):
            assert layout is LAYOUTS["exact"]
            model = {
                "groups": groups, "objective": objective, "rate": learning_rate, "seed": seed,
                "recipe": recipe,
            }  # fmt: skip
            trainings.append(model)
            return model, 42

        class Scores:
            @staticmethod
            def score(model, groups, *, pad_token_id):
                assert pad_token_id == 42
                values = [score(model, group) for group in groups]
                return edits_scores(values)

        def edits_scores(values):
            class Flat:
                @staticmethod
                def numpy():
                    return np.array([value for group in values for value in group], dtype=float)

            return Flat()

        monkeypatch.setattr(edits, "train", train)
        monkeypatch.setattr(edits, "reward_model", Scores)
        return trainings

    return use


@pytest.mark.parametrize(
    ("arm", "size", "share", "edited", "plain", "added"),
    [
        (IGNORE, 4, 1.0, [6, 3], [8, 1], []),
        ("all pairs", 4, 1.0, [6, 3], [8, 1], []),
        ("all pairs", 4, 0.5, [6], [8, 3, 1], []),
        ("all pairs", 5, 0.5, [6, 3], [8, 1, 0], []),  # half of three edits: two
        ("one more pair", 4, 1.0, [6, 3], [8, 1], [0, 2]),
        ("two more pairs", 4, 1.0, [6, 3], [8, 1], [0, 2, 4, 5]),
        ("two more pairs", 4, 0.5, [6], [8, 3, 1], [0, 2]),
    ],
)
def test_groups_are_chosen_by_hand(arm, size, share, edited, plain, added):
    order = np.array([8, 6, 3, 1, 0, 2, 4, 5, 7, 9])
    found = choose(order, HAS_EDIT, ARMS[arm], size, share)
    assert found.edited.tolist() == edited
    assert found.plain.tolist() == plain
    assert found.added.tolist() == added


def test_more_groups_than_there_are_is_refused():
    order = np.array([8, 6, 3, 1, 0])
    assert len(choose(order, HAS_EDIT, ARMS["all pairs"], 5, 1.0).plain) == 2
    message = "4 groups with 2 edits need 8 training groups, of which there are 5; lower sizes"
    with pytest.raises(ValueError, match=message):
        choose(order, HAS_EDIT, ARMS["two more pairs"], 4, 1.0)
    with pytest.raises(ValueError, match="6 groups with 3 edits need 6 training groups"):
        choose(order, HAS_EDIT, ARMS[IGNORE], 6, 1.0)


def trained_pairs(bench, groups):
    """Pairs by group and roles, as texts of token ids."""
    return sorted(
        (g.tokens.prompt, g.tokens.responses[p.winner], g.tokens.responses[p.loser], p.weight)
        for g in groups
        for p in g.pairs
    )


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_trains_on_its_pairs_of_edits_and_on_rated_pairs_of_all_others(bench, name):
    arm, tokens = ARMS[name], bench.prepared.tokens
    chosen = choose(bench.order(0), bench.has_edit, arm, 12, 0.5)
    assert len(chosen.edited) > 1
    expected = []
    for i in (*chosen.plain, *chosen.added):
        expected.append((tokens[i].prompt, *tokens[i].responses[-2:], 1.0))
    pairs = {
        "edited > chosen": [(0, 1), (1, 2)],
        "edited > rejected": [(0, 2), (1, 2)],
        "all pairs": [(0, 1), (0, 2), (1, 2)],
        "all pairs, by prompt": [(0, 1), (0, 2), (1, 2)],
        "Plackett–Luce": [(0, 1), (0, 2), (1, 2)],
        "edit instead of chosen": [(0, 2)],
    }
    weight = 1 / 3 if name == "all pairs, by prompt" else 1.0
    for i in chosen.edited:
        for winner, loser in pairs.get(name, [(1, 2)]):
            responses = tokens[i].responses
            expected.append((tokens[i].prompt, responses[winner], responses[loser], weight))
    assert trained_pairs(bench, bench.training_groups(arm, chosen)) == sorted(expected)


def test_training_and_test_share_no_prompt_and_gold_is_that_of_the_responses(bench):
    prepared = bench.prepared
    names = [
        {prepared.ranked[i].group for i in part} for part in (prepared.training, prepared.test)
    ]
    assert not names[0] & names[1]
    assert len(prepared.test) == 10
    simulated = simulate(80, seed=SETTINGS.data_seed, edited_share=1.0)
    assert prepared.ranked == [group.ranked for group in simulated]
    assert prepared.gold == [group.gold("helpfulness") for group in simulated]
    assert all(
        len(truth) == len(group.responses) == len(tokens.responses)
        for truth, group, tokens in zip(
            prepared.gold, prepared.ranked, prepared.tokens, strict=True
        )
    )
    assert prepared.account["groups with an edit"] == sum(g.ranked.has_edit for g in simulated)
    assert bench.has_edit.tolist() == [group.ranked.has_edit for group in simulated]


def test_an_edit_that_equals_another_response_in_tokens_is_taken_off(
    monkeypatch, tmp_path, tiny_checkpoint
):
    groups = [group.ranked for group in simulate(30, seed=3, edited_share=1.0)]
    # Both words are unknown to the tokenizer.
    same = RankedGroup("same", (Message("user", "repeat : cat"),), ("qqq", "zzz", "cat"))
    write_groups(tmp_path / "mine.jsonl", [*groups, same])
    monkeypatch.setenv("POSTTRAIN_DATA", str(tmp_path))
    found = prepare("mine", tiny_checkpoint, replace(SETTINGS, sizes=[4]))
    assert found.account["edits equal to another response in tokens"] == 1
    assert found.gold is None
    last = next(k for k, group in enumerate(found.ranked) if group.id == "same")
    assert found.ranked[last].responses == ("zzz", "cat")
    assert len(found.tokens[last].responses) == 2
    assert found.tokens[last].places == (0, 1)


def test_all_arms_are_tuned_on_the_same_held_out_pairs_whatever_they_add(bench, stand_in):
    judged = {}

    def score(model, group):
        judged.setdefault((model["seed"], model["rate"]), []).append(group)
        trained = {(g.tokens.prompt) for g in model["groups"]}
        assert group.prompt not in trained
        # The larger rate ranks chosen over rejected, the smaller one ties.
        good = range(len(group.responses))[::-1]
        return good if model["rate"] == 1e-2 else [0.0] * len(group.responses)

    seen = {}
    for name in (IGNORE, "all pairs", "two more pairs"):
        judged.clear()
        trainings = stand_in(score)
        trainings.clear()
        assert tune(bench, Cell(name, 12, 0.5)) == [(1e-3, 0.5), (1e-2, 1.0)]
        assert [(t["seed"], t["rate"]) for t in trainings] == [
            (0, 1e-3), (0, 1e-2), (1, 1e-3), (1, 1e-2),
        ]  # fmt: skip
        seen[name] = dict(judged)
        sizes = [len(training["groups"]) for training in trainings]
        assert (max(sizes) > 12) == (name == "two more pairs")
    assert seen[IGNORE] == seen["all pairs"] == seen["two more pairs"]


def test_a_single_learning_rate_is_not_judged(bench, stand_in):
    trainings = stand_in(None)
    alone = replace(bench, settings=replace(SETTINGS, learning_rates=[0.5]))
    ((rate, accuracy),) = tune(alone, Cell(IGNORE, 12, 1.0))
    assert rate == 0.5
    assert math.isnan(accuracy)
    assert not trainings


def test_every_seed_trains_on_other_groups_and_is_tested_on_all_responses(bench, stand_in):
    tested = []

    def score(model, group):
        tested.append((model["seed"], group))
        return [2.0, 1.0, 0.0][-len(group.responses) :] if model["seed"] else [0.0] * 3

    def flat(model, group):
        return list(score(model, group))[: len(group.responses)]

    trainings = stand_in(flat)
    sums, cost = train_and_test(bench, Cell("all pairs", 12, 1.0), 0.3)
    assert sums.shape[::2] == (2, COLUMNS)
    test = [bench.prepared.tokens[i] for i in bench.prepared.test]
    assert [group for seed, group in tested if seed == 0] == test
    assert {t["rate"] for t in trainings} == {0.3}
    assert all(t["recipe"] is SETTINGS for t in trainings)
    first, second = ({g.tokens.prompt for g in t["groups"]} for t in trainings)
    assert first != second
    rated = sums[:, :, :1].sum(axis=1).ravel()
    assert rated.tolist() == [10, 10]

    chosen = [choose(bench.order(s), bench.has_edit, ARMS["all pairs"], 12, 1.0) for s in (0, 1)]
    number = np.mean([len(found.edited) for found in chosen])
    assert cost["groups"] == 12
    assert cost["edits"] == number
    assert cost["pairs"] == 12 + 2 * number
    assert cost["decisions"] == 12 + number
    tokens = [
        sum(bench.prepared.tokens[i].total for i in (*found.edited, *found.plain))
        for found in chosen
    ]
    # All responses of edited groups are in the row, and both of the others.
    assert cost["tokens"] == np.mean(tokens)


@pytest.fixture(scope="module")
def record(tiny_checkpoint):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_groups.checkpoints, "tiny", lambda: tiny_checkpoint)
        return run("simulator", profile="test", settings=SETTINGS)


def test_a_record_has_every_cell_and_can_be_read_again(record, bench, tmp_path):
    assert (record.study, record.source, record.profile) == ("edits", "simulator", "test")
    assert record.settings == asdict(SETTINGS)
    assert record.data == bench.prepared.account
    metrics = record.tables["metrics"]
    cells = set(metrics[["arm", "size", "share"]].itertuples(index=False, name=None))
    assert cells == {(arm, 12, share) for arm in ARMS for share in (0.5, 1.0)}
    assert set(record.tables["contrasts"]["contrast"]) == set(CONTRASTS)
    assert len(record.tables["costs"]) == len(cells)
    again = records.load(records.save(record, tmp_path))
    for name, table in record.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table, rtol=1e-5, check_dtype=False)


def test_arms_without_edits_are_trained_once_for_all_shares(record):
    metrics = record.tables["metrics"]
    ignored = metrics[metrics["arm"] == IGNORE]
    parts = [
        ignored[ignored["share"] == share].drop(columns="share").reset_index(drop=True)
        for share in (0.5, 1.0)
    ]
    pd.testing.assert_frame_equal(*parts)
    tuned = record.tables["tuning"]
    assert set(tuned[tuned["arm"] == IGNORE]["share"]) == {0.5}
    assert set(tuned[tuned["arm"] == "two more pairs"]["share"]) == {0.5, 1.0}
    assert [name for name, arm in ARMS.items() if not depends_on_edits(arm)] == [IGNORE]


def test_the_study_is_repeatable(record, tiny):
    settings = replace(SETTINGS, arms=[IGNORE, "Plackett–Luce"], shares=[1.0])
    again = run("simulator", settings=settings).tables["metrics"]
    before = record.tables["metrics"]
    for arm in settings.arms:
        one, other = (
            table[(table["arm"] == arm) & (table["share"] == 1.0) & (table["metric"] == RATED)]
            for table in (before, again)
        )
        assert one["estimate"].item() == pytest.approx(other["estimate"].item(), abs=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ["all pairs"]}, "arms must contain 'edits ignored' and only names of"),
        ({"arms": [IGNORE, "magic"]}, "arms must contain .* got edits ignored, magic"),
        ({"shares": [0.0]}, r"shares must lie above 0 and be at most 1, not \[0.0\]"),
        ({"shares": []}, "shares needs at least one value"),
        ({"sizes": []}, "sizes needs at least one value"),
        ({"learning_rates": []}, "learning_rates needs at least one value"),
        ({"seeds": 0}, "seeds must be at least 1, not 0"),
        ({"test_size": 0}, "test_size must be at least 1, not 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        EditSettings(**changes)
