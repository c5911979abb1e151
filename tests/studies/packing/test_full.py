"""The packing study: what is trained on what, and a record that can be saved, read and judged."""

import gc
import math
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from posttrain.data.preferences import Message, RankedGroup, fingerprint
from posttrain.data.reading import write_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.evidence import records
from posttrain.evidence.judging import judge
from posttrain.models import reward_model
from posttrain.rows.layout import LAYOUTS, Layout
from posttrain.rows.tokenization import tokenize_group
from posttrain.studies.common import groups as study_groups
from posttrain.studies.packing import full, study
from posttrain.studies.packing.claims import CLAIMS
from posttrain.studies.packing.full import (
    HumanPackingSettings,
    PackingSettings,
    Prepared,
    prepare,
    score_differences,
    train_and_test,
    tune,
)
from posttrain.studies.packing.outcome import ARMS, TESTS, chosen_rates, order_metrics
from posttrain.studies.packing.study import STUDY

FOUR_ARMS = ["separate", "exact", "causal", "causal, ranked"]
SETTINGS = PackingSettings(
    arms=FOUR_ARMS,
    size=16,
    test_size=14,
    seeds=2,
    learning_rates=[1e-3, 1e-2],
    tuning_seeds=1,
    batch_size=8,
    groups=60,
    resamples=20,
)
ONE_RATE = replace(SETTINGS, arms=["separate", "causal"], seeds=1, learning_rates=[1e-2])
HUMAN = HumanPackingSettings(
    arms=["exact", "separate"],
    top_layers=1,
    size=8,
    test_size=6,
    seeds=1,
    learning_rates=[1e-3],
    batch_size=4,
    resamples=5,
)
CAUSAL = TESTS["causal"]


@pytest.fixture(scope="module")
def record(tiny_checkpoint):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_groups.embedded, "tiny", lambda: tiny_checkpoint)
        return STUDY.run("simulator", profile="test", settings=SETTINGS)


@pytest.fixture(scope="module")
def single_rate(tiny_checkpoint):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_groups.embedded, "tiny", lambda: tiny_checkpoint)
        return STUDY.run("simulator", settings=ONE_RATE)


@pytest.fixture(scope="module")
def prepared(tiny_checkpoint):
    return prepare("simulator", tiny_checkpoint, SETTINGS)


@pytest.fixture
def human_data(monkeypatch, tmp_path, tiny_checkpoint):
    """Simulated groups as human data, three of each split group, and one without a pair.

    The responses of that one are equal in (unknown) tokens.
    """
    groups = [
        replace(group.ranked, cluster_id=f"topic {number // 3}")
        for number, group in enumerate(simulate(50, seed=3, edited_share=0.5))
    ]
    unknown = RankedGroup("unknown", (Message("user", "translate : cat"),), ("qqq", "zzz"))
    groups.insert(20, unknown)
    write_groups(tmp_path / "mine.jsonl", groups)
    monkeypatch.setenv("POSTTRAIN_DATA", str(tmp_path))
    monkeypatch.setattr(study_groups.embedded, "smollm2", lambda: tiny_checkpoint)
    return groups


def names(prepared, indices):
    return {prepared.ranked[i].cluster_id for i in indices}


def of_size(groups, count):
    return [group for group in groups if len(group.responses) == count]


def value(table, **where):
    found = table
    for column, wanted in where.items():
        found = found[found[column] == wanted]
    assert len(found) == 1
    return found.iloc[0]


def test_the_source_decides_the_settings():
    assert STUDY.settings_for("simulator") is PackingSettings
    assert STUDY.settings_for("ukpconvarg") is HumanPackingSettings
    assert STUDY.settings_for("mine") is HumanPackingSettings
    assert PackingSettings().arms == list(ARMS)
    assert HumanPackingSettings().arms == FOUR_ARMS
    assert PackingSettings().tests == list(TESTS)
    assert HumanPackingSettings().tests == ["separate", "causal"]
    assert (PackingSettings().top_layers, HumanPackingSettings().top_layers) == (0, 6)
    # Lists are not shared.
    PackingSettings().arms.clear()
    assert PackingSettings().arms == list(ARMS)


def test_training_and_test_share_no_group_and_the_test_part_has_a_limit(tiny_checkpoint, prepared):
    whole = prepare("simulator", tiny_checkpoint, replace(SETTINGS, test_size=1000))
    assert sorted([*whole.training, *whole.test]) == list(range(60))
    assert not names(whole, whole.training) & names(whole, whole.test)
    distinct = {group.cluster_id for group in whole.ranked}
    assert len(names(whole, whole.test)) == math.ceil(0.3 * len(distinct))
    assert whole.account["test groups"] == len(whole.test) > 14

    assert prepared.account["test groups"] == len(prepared.test) == 14
    assert list(prepared.training) == list(whole.training)
    assert set(prepared.test) < set(whole.test)
    assert list(prepared.test) == sorted(set(prepared.test))
    # A random part, not the beginning.
    assert list(prepared.test) != list(whole.test[:14])


def test_preparing_is_repeatable_and_follows_the_seed(tiny_checkpoint, prepared):
    again = prepare("simulator", tiny_checkpoint, SETTINGS)
    assert again.account == prepared.account
    assert again.tokens == prepared.tokens
    assert list(again.test) == list(prepared.test)
    other = prepare("simulator", tiny_checkpoint, replace(SETTINGS, data_seed=2))
    assert other.account["fingerprint"] != prepared.account["fingerprint"]
    assert list(other.test) != list(prepared.test)


def test_simulated_groups_are_those_of_the_settings(tiny_checkpoint, prepared):
    drawn = [group.ranked for group in simulate(60, seed=1, edited_share=0.5)]
    assert prepared.ranked == drawn
    assert prepared.account == {
        "groups": 60, "fingerprint": fingerprint(drawn), "tokenisation": {}, "test groups": 14,
        "clusters": 14,
    }  # fmt: skip
    assert {len(group.responses) for group in prepared.tokens} == {2, 3}
    plain = prepare("simulator", tiny_checkpoint, replace(SETTINGS, edited_share=0.0))
    assert {len(group.responses) for group in plain.tokens} == {2}


def test_test_codes_number_the_groups_of_the_test_part(prepared):
    codes = prepared.test_codes
    assert len(codes) == len(prepared.test)
    assert set(codes) == set(range(len(names(prepared, prepared.test))))
    of_code = {}
    for code, index in zip(codes, prepared.test, strict=True):
        of_code.setdefault(code, set()).add(prepared.ranked[index].cluster_id)
    assert all(len(found) == 1 for found in of_code.values())
    assert len(set.union(*of_code.values())) == len(of_code)


def test_more_training_groups_than_there_are_is_refused(tiny_checkpoint, prepared):
    count = len(prepared.training)
    exact = prepare("simulator", tiny_checkpoint, replace(SETTINGS, size=count))
    assert len(exact.training) == count
    with pytest.raises(
        ValueError,
        match=f"size {count + 1} exceeds the {count} training groups; lower size or use more",
    ):
        prepare("simulator", tiny_checkpoint, replace(SETTINGS, size=count + 1))


def test_human_data_are_read_and_what_cannot_be_ranked_is_left_out(human_data, tiny_checkpoint):
    found = prepare("mine", tiny_checkpoint, HUMAN)
    assert found.account == {
        "file": "mine.jsonl",
        "groups": 51,
        "fingerprint": fingerprint(human_data),
        "tokenisation": {"no pair left": 1},
        "test groups": 6,
        "clusters": 5,
    }
    # The tokens are those of the groups beside them.
    assert found.ranked == [group for group in human_data if group.id != "unknown"]
    _, tokenizer = reward_model.load(tiny_checkpoint)
    assert found.tokens == [tokenize_group(tokenizer, group) for group in found.ranked]


def test_records_of_one_group_fall_on_one_side(human_data, tiny_checkpoint):
    found = prepare("mine", tiny_checkpoint, replace(HUMAN, test_size=100))
    assert len(found.training) + len(found.test) == 50
    assert not names(found, found.training) & names(found, found.test)
    # Of 17 groups a share of 0.3, rounded up.
    assert len(names(found, found.test)) == max(found.test_codes) + 1 == 6
    assert len(found.test) > 12


def test_prompts_are_cut_to_the_settings(human_data, tiny_checkpoint):
    longest = max(g.longest for g in prepare("mine", tiny_checkpoint, HUMAN).tokens)
    found = prepare("mine", tiny_checkpoint, replace(HUMAN, max_tokens=longest - 1))
    assert max(group.longest for group in found.tokens) == longest - 1
    assert found.account["tokenisation"]["trimmed prompts"] >= 1


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("a", 0.1, math.nan), ("b", 0.1, math.nan)], {"a": 0.1, "b": 0.1}),
        (
            [("b", 0.1, 0.7), ("b", 0.3, 0.6), ("a", 0.1, 0.6), ("a", 0.3, 0.8)],
            {"a": 0.3, "b": 0.1},
        ),
        ([("a", 0.1, 0.5), ("a", 0.3, 0.7), ("a", 1.0, 0.6)], {"a": 0.3}),
        # Of equals, the first.
        ([("a", 0.3, 0.7), ("a", 0.1, 0.7)], {"a": 0.3}),
    ],
)
def test_each_arm_takes_its_best_learning_rate(rows, expected):
    table = pd.DataFrame(rows, columns=["trained", "learning rate", "accuracy"])
    assert chosen_rates(table) == expected


@pytest.fixture
def stand_in(monkeypatch):
    """Replaces training and scoring; lists what was trained, and scores as a test says."""
    trainings = []

    def use(score):
        def train(checkpoint, groups, layout, recipe, *, learning_rate, seed):
            arm = next(name for name, known in ARMS.items() if known is layout)
            model = SimpleNamespace(
                arm=arm, groups=groups, recipe=recipe, rate=learning_rate, seed=seed
            )
            trainings.append(model)
            return model, 42

        def differences(model, groups, layout, pad_token_id):
            assert pad_token_id == 42
            test = next(name for name, known in TESTS.items() if known is layout)
            return tuple(map(np.array, score(model, groups, test)))

        monkeypatch.setattr(full, "train", train)
        monkeypatch.setattr(full, "score_differences", differences)
        return trainings

    return use


def indices(prepared, groups):
    """Which of the prepared groups these are; none twice."""
    known = {id(tokens): number for number, tokens in enumerate(prepared.tokens)}
    found = [known[id(group)] for group in groups]
    assert len(set(found)) == len(found)
    return set(found)


def test_tuning_judges_each_rate_on_training_groups_in_the_arms_own_layout(stand_in, prepared):
    judged = {}

    def score(model, groups, test):
        part = indices(prepared, groups)
        judged.setdefault((model.arm, test), []).append(part)
        trained = indices(prepared, [group.tokens for group in model.groups])
        # Of 16 groups or fewer prompts, a fifth is judged; no prompt is on both sides.
        assert len(trained) + len(part) == 16
        assert trained | part <= set(prepared.training)
        assert not names(prepared, trained) & names(prepared, part)
        # Right in one order and tied in the other; the first seed of the larger rate is perfect.
        perfect = model.rate == 1e-2 and model.seed == 0
        return [1.0] * len(part), [1.0 if perfect else 0.0] * len(part)

    settings = replace(SETTINGS, tuning_seeds=2)
    trainings = stand_in(score)
    table = tune("checkpoint", prepared, settings)
    assert [*table.itertuples(index=False, name=None)] == [
        (arm, rate, accuracy)
        for arm in FOUR_ARMS
        for rate, accuracy in ((1e-3, 0.75), (1e-2, 0.875))
    ]
    assert [(t.arm, t.rate, t.seed) for t in trainings] == [
        (arm, rate, seed) for arm in FOUR_ARMS for rate in (1e-3, 1e-2) for seed in (0, 1)
    ]
    assert all(training.recipe is settings for training in trainings)
    assert list(judged) == [
        ("separate", "separate"), ("exact", "separate"), ("causal", "causal"),
        ("causal, ranked", "causal"),
    ]  # fmt: skip
    # All arms and rates have the same split, every seed has another one.
    splits = list(judged.values())
    assert all(found == splits[0] for found in splits)
    assert splits[0][0] == splits[0][2] != splits[0][1] == splits[0][3]


def test_a_single_learning_rate_is_not_judged(stand_in, prepared):
    trainings = stand_in(None)
    table = tune("checkpoint", prepared, replace(SETTINGS, learning_rates=[0.5]))
    assert not trainings
    assert [*table["trained"]] == FOUR_ARMS
    assert set(table["learning rate"]) == {0.5}
    assert table["accuracy"].isna().all()


@pytest.mark.parametrize("tests", [list(TESTS), ["causal", "separate"]])
def test_every_arm_is_trained_on_the_same_groups_and_tested_in_every_layout(
    stand_in, prepared, tests
):
    def planted(model, test):
        """Distinct numbers for every arm, layout and seed."""
        start = 1 + FOUR_ARMS.index(model.arm) * 100 + list(TESTS).index(test) * 10 + model.seed
        return start / 100

    def score(model, groups, test):
        assert groups == [prepared.tokens[i] for i in prepared.test]
        number = np.arange(len(groups))
        return planted(model, test) + number, planted(model, test) - number

    rates = dict(zip(FOUR_ARMS, (0.1, 0.2, 0.3, 0.4), strict=True))
    trainings = stand_in(score)
    settings = replace(SETTINGS, tests=tests)
    outcome = train_and_test("checkpoint", prepared, rates, settings)
    assert [(t.arm, t.seed, t.rate) for t in trainings] == [
        (arm, seed, rate) for seed in (0, 1) for arm, rate in rates.items()
    ]
    assert all(training.recipe is settings for training in trainings)
    subsets = [indices(prepared, [group.tokens for group in t.groups]) for t in trainings]
    assert [len(subset) for subset in subsets] == [16] * 8
    assert subsets[:4] == [subsets[0]] * 4
    assert subsets[4:] == [subsets[4]] * 4
    assert subsets[0] != subsets[4]
    assert subsets[0] | subsets[4] <= set(prepared.training)
    for training in trainings:
        counts = [len(group.pairs) for group in training.groups]
        assert counts == [{2: 1, 3: 3}[len(g.tokens.responses)] for g in training.groups]

    assert (outcome.arms, outcome.tests) == (tuple(FOUR_ARMS), tuple(tests))
    codes = prepared.test_codes
    assert outcome.sums.shape[:4] == (4, len(tests), 2, max(codes) + 1)
    # A pair's mean over both orders is what was planted; alone it is that of separate rows.
    number = np.arange(len(codes))
    for a, t, s in np.ndindex(*outcome.sums.shape[:3]):
        model = SimpleNamespace(arm=FOUR_ARMS[a], seed=s)
        middle, alone = planted(model, tests[t]), planted(model, "separate") + number
        found = order_metrics(outcome.sums[a, t, s].sum(axis=0))
        distance = math.sqrt(((middle - alone) ** 2).mean() / (alone**2).mean())
        assert found["distance"] == pytest.approx(distance)
        assert found["slot bias"] == pytest.approx(number.mean() / middle)
        np.testing.assert_array_equal(outcome.sums[a, t, s, :, 0], np.bincount(codes))


def test_order_means_nothing_to_the_differences_of_an_exact_layout(tiny_model, tiny_groups):
    model, tokenizer = tiny_model
    groups = [*of_size(tiny_groups, 3)[:3], *of_size(tiny_groups, 2)[:3]]
    scores = [reward_model.score(model, [g], pad_token_id=tokenizer.pad_token_id) for g in groups]
    expected = [float(found[-2] - found[-1]) for found in scores]
    for layout in (LAYOUTS["separate"], LAYOUTS["exact"]):
        first, last = score_differences(model, groups, layout, tokenizer.pad_token_id)
        assert first is last
        assert first.tolist() == pytest.approx(expected, abs=1e-9)


def test_differences_of_a_causal_row_are_those_of_two_plain_sequences(tiny_model, tiny_groups):
    model, tokenizer = tiny_model
    groups = [of_size(tiny_groups, 2)[0], *of_size(tiny_groups, 3)[:2], of_size(tiny_groups, 2)[1]]

    def scores(prompt, responses):
        ids = torch.tensor([[*prompt, *(token for response in responses for token in response)]])
        ends = len(prompt) + np.cumsum([len(response) for response in responses]) - 1
        with torch.no_grad():
            return model.score(model.model(ids, use_cache=False).last_hidden_state)[0, ends, 0]

    first, last = score_differences(model, groups, CAUSAL, tokenizer.pad_token_id)
    for place, group in enumerate(groups):
        ranked = scores(group.prompt, group.responses)
        backwards = scores(group.prompt, group.responses[::-1])
        assert first[place] == pytest.approx(float(ranked[-2] - ranked[-1]), abs=1e-9)
        assert last[place] == pytest.approx(float(backwards[1] - backwards[0]), abs=1e-9)
    assert (np.abs(first - last) > 1e-4).all()


def test_reversed_pairs_swap_first_and_last(tiny_model, tiny_groups):
    model, tokenizer = tiny_model
    pairs = of_size(tiny_groups, 2)[:4]
    turned = [replace(group, responses=group.responses[::-1]) for group in pairs]
    first, last = score_differences(model, pairs, CAUSAL, tokenizer.pad_token_id)
    # What was chosen is now rejected, and what came first comes last.
    other_first, other_last = score_differences(model, turned, CAUSAL, tokenizer.pad_token_id)
    assert other_first.tolist() == pytest.approx((-last).tolist(), abs=1e-12)
    assert other_last.tolist() == pytest.approx((-first).tolist(), abs=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"arms": ["separate", "llama4"]},
            "arms must contain separate and only names of separate, exact, .*; got .*, llama4$",
        ),
        ({"arms": ["exact", "causal"]}, "arms must contain separate and .*; got exact, causal$"),
        ({"arms": []}, "arms must contain separate and .*; got $"),
        (
            {"tests": ["separate", "exact"], "arms": ["separate"]},
            "tests must contain separate and only names of separate, causal attention, running "
            "positions, causal, each once; got separate, exact$",
        ),
        (
            {"tests": ["separate", "separate"], "arms": ["separate"]},
            "tests must contain .*, each once; got separate, separate$",
        ),
        ({"seeds": 0}, "seeds must be at least 1, not 0$"),
        ({"test_size": 0}, "test_size must be at least 1, not 0$"),
        ({"learning_rates": []}, "learning_rates needs at least one value$"),
        # Every arm is tested in its own rows.
        (
            {"tests": ["causal"], "arms": ["separate", "causal, ranked"]},
            "tests must contain causal, separate and .*; got causal$",
        ),
        (
            {"tests": ["separate", "causal"], "arms": ["separate", "running positions, ranked"]},
            "tests must contain running positions, separate and .*; got separate, causal$",
        ),
    ],
)
@pytest.mark.parametrize("source", ["simulator", "ukpconvarg"])
def test_unknown_names_and_missing_references_are_refused(monkeypatch, source, changes, message):
    for name in ("tiny", "smollm2"):
        monkeypatch.setattr(study_groups.embedded, name, lambda: pytest.fail("too late"))
    with pytest.raises(ValueError, match=message):
        STUDY.run(source, settings=replace(STUDY.settings_for(source)(), **changes))


def test_a_record_says_what_was_run(record, prepared):
    assert (record.study, record.source, record.profile) == ("packing", "simulator", "test")
    assert record.name == "packing-simulator"
    assert record.settings == asdict(SETTINGS)
    assert record.data == prepared.account
    assert record.environment["seconds"] > 0
    assert list(record.tables) == [
        "tuning", "matrix", "differences", "contrasts", "non-inferiority",
    ]  # fmt: skip
    assert list(dict.fromkeys(record.tables["matrix"]["trained"])) == FOUR_ARMS
    assert set(record.tables["matrix"]["tested"]) == set(TESTS)
    assert len(record.tables["contrasts"]) == 3
    assert set(record.tables["non-inferiority"]["seeds"]) == {2}


def test_exact_rows_train_the_same_model_as_separate_rows(record):
    for test in TESTS:
        for metric in ("accuracy", "log-likelihood", "flips", "slot bias"):
            one, other = (
                value(record.tables["matrix"], trained=arm, tested=test, metric=metric)
                for arm in ("separate", "exact")
            )
            assert one["estimate"] == pytest.approx(other["estimate"], abs=1e-9)
    causal = value(record.tables["matrix"], trained="causal", tested="separate", metric="accuracy")
    assert math.isfinite(causal["estimate"])
    flips = value(record.tables["matrix"], trained="exact", tested="causal", metric="flips")
    assert flips["estimate"] > 0


def test_learning_rates_are_judged_where_there_is_a_choice(record, single_rate):
    tuning = record.tables["tuning"]
    assert [*tuning["trained"]] == [arm for arm in FOUR_ARMS for _ in range(2)]
    assert [*tuning["learning rate"]] == [1e-3, 1e-2] * 4
    assert tuning["accuracy"].between(0, 1).all()
    by_arm = tuning.set_index(["trained", "learning rate"])["accuracy"]
    assert by_arm["separate"].tolist() == pytest.approx(by_arm["exact"].tolist())
    tuning = single_rate.tables["tuning"]
    assert [*tuning["trained"]] == ["separate", "causal"]
    assert tuning["accuracy"].isna().all()


def test_a_single_seed_and_a_single_rate_are_enough(single_rate):
    assert single_rate.profile == "custom"
    assert [*single_rate.tables["contrasts"]["contrast"]] == ["own - separate"]
    table = single_rate.tables["non-inferiority"]
    assert table[["sd", "p inferior", "p superior"]].isna().all(axis=None)
    assert not single_rate.tables["matrix"]["estimate"].isna().any()


@pytest.mark.parametrize("which", ["record", "single_rate"])
def test_a_record_comes_back_from_its_file(which, request, tmp_path):
    record = request.getfixturevalue(which)
    path = records.save(record, tmp_path)
    assert path == tmp_path / "packing-simulator.json"
    found = records.load(path)
    assert replace(found, tables={}) == replace(record, tables={})
    assert list(found.tables) == list(record.tables)
    for name, table in record.tables.items():
        pd.testing.assert_frame_equal(
            found.tables[name], table, rtol=1e-5, check_dtype=False, check_index_type=False
        )


def test_every_claim_can_judge_a_record_that_was_saved(record, tmp_path):
    found = records.load(records.save(record, tmp_path))
    claims = [claim for claim in CLAIMS if claim.study == "packing"]
    before, after = (judge(claims, [one]) for one in (record, found))
    for key, one in before.items():
        assert one.outcome == after[key].outcome
        # Not every run has the arm that a claim is about.
        for said, again in zip(one.voices, after[key].voices, strict=True):
            assert said.shown == pytest.approx(again.shown, rel=1e-5, abs=1e-9)


def test_human_data_train_the_top_layers_of_smollm2(human_data, monkeypatch):
    trained = []
    train = full.train

    def record_call(checkpoint, groups, layout, recipe, **options):
        model, pad_token_id = train(checkpoint, groups, layout, recipe, **options)
        trained.append((len(groups), layout, options["seed"], model))
        return model, pad_token_id

    monkeypatch.setattr(full, "train", record_call)
    record = STUDY.run("mine", profile="test", settings=HUMAN)
    assert record.name == "packing-mine"
    assert record.settings == asdict(HUMAN)
    assert record.data["file"] == "mine.jsonl"
    assert record.data["tokenisation"] == {"no pair left": 1}
    assert [run[:3] for run in trained] == [(8, Layout(), 0), (8, Layout("separate"), 0)]
    for *_, model in trained:
        assert not model.model.embed_tokens.weight.requires_grad
        assert model.score.weight.requires_grad
    matrix = record.tables["matrix"]
    assert matrix["trained"].unique().tolist() == ["exact", "separate"]
    assert matrix["tested"].unique().tolist() == ["separate", "causal"]


def test_human_data_has_settings_of_its_own_by_default(human_data, monkeypatch):
    seen = []

    def stop(source, checkpoint, settings):
        seen.append((source, settings))
        raise ValueError("stopped here")

    monkeypatch.setattr(study, "prepare", stop)
    with pytest.raises(ValueError, match="stopped here"):
        STUDY.run("mine")
    assert seen == [("mine", HumanPackingSettings())]


@pytest.mark.parametrize("fails", [False, True])
def test_garbage_collection_goes_on_as_before(monkeypatch, tiny_checkpoint, fails):
    """Objects are set aside for the trainings only, however these end."""
    frozen = []

    def stop(*arguments):
        frozen.append(gc.get_freeze_count())
        if fails:
            raise ValueError("stopped here")
        return pd.DataFrame(columns=["trained", "learning rate", "accuracy"])

    monkeypatch.setattr(study_groups.embedded, "tiny", lambda: tiny_checkpoint)
    monkeypatch.setattr(study, "tune", stop)
    monkeypatch.setattr(study, "chosen_rates", lambda tuning: {})
    monkeypatch.setattr(study, "train_and_test", lambda *arguments: None)
    monkeypatch.setattr(study, "summarise", lambda *arguments, **options: {})
    settings = replace(SETTINGS, resamples=2)
    if fails:
        with pytest.raises(ValueError, match="stopped here"):
            STUDY.run("simulator", settings=settings)
    else:
        STUDY.run("simulator", settings=settings)
    assert frozen[0] > 1000
    assert gc.get_freeze_count() == 0


@pytest.fixture
def trainings(monkeypatch, tiny_checkpoint):
    """What was trained, in this order; committed code, and the tiny Llama."""
    seen = []
    true_train = full.train

    def train(checkpoint, groups, layout, recipe, *, learning_rate, seed):
        seen.append((layout, learning_rate, seed, len(groups)))
        return true_train(
            checkpoint, groups, layout, recipe, learning_rate=learning_rate, seed=seed
        )

    monkeypatch.setattr(full, "train", train)
    monkeypatch.setattr(study_groups.embedded, "tiny", lambda: tiny_checkpoint)
    monkeypatch.setattr(records, "_commit", lambda: "0123456789ab")
    return seen


def test_an_interrupted_study_goes_on_where_it_stopped(record, trainings, tmp_path, monkeypatch):
    scored = full.score_differences

    def interrupted(*arguments):
        if len(trainings) == 11:
            raise KeyboardInterrupt
        return scored(*arguments)

    monkeypatch.setattr(full, "score_differences", interrupted)
    with pytest.raises(KeyboardInterrupt):
        STUDY.run("simulator", settings=SETTINGS, cache_dir=tmp_path)
    before = [*trainings]
    # Four arms at two rates to choose from, and three of the runs to judge; the last did not end.
    assert len(before) == 11
    trainings.clear()
    again = STUDY.run("simulator", settings=SETTINGS, cache_dir=tmp_path)
    assert len(trainings) == 4 * 2 + 4 * 2 - 10
    assert trainings[0] == before[-1]
    assert not {*trainings[1:]} & {*before}
    for name, table in record.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table)
    trainings.clear()
    STUDY.run("simulator", settings=SETTINGS, cache_dir=tmp_path)
    assert trainings == []


@pytest.mark.parametrize("changed", ["settings", "data", "commit"])
def test_finished_runs_of_something_else_are_not_taken(trainings, tmp_path, monkeypatch, changed):
    STUDY.run("simulator", settings=ONE_RATE, cache_dir=tmp_path)
    assert len(trainings) == 2
    settings = ONE_RATE
    if changed == "settings":
        settings = replace(ONE_RATE, epochs=2)
    elif changed == "data":
        true_load = full.load_groups

        def other(*arguments):
            found = true_load(*arguments)
            return replace(found, account=found.account | {"fingerprint": "another"})

        monkeypatch.setattr(full, "load_groups", other)
    else:
        monkeypatch.setattr(records, "_commit", lambda: "ba9876543210")
    STUDY.run("simulator", settings=settings, cache_dir=tmp_path)
    assert len(trainings) == 4


def test_runs_of_code_that_may_still_change_are_not_kept(trainings, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_commit", lambda: "0123456789ab+")
    with pytest.raises(ValueError, match="cannot keep finished runs of code that is not committed"):
        STUDY.run("simulator", settings=ONE_RATE, cache_dir=tmp_path)
    assert (trainings, [*tmp_path.iterdir()]) == ([], [])
    # Outside a checkout the versions of the packages say which code it was.
    monkeypatch.setattr(records, "_commit", lambda: None)
    STUDY.run("simulator", settings=ONE_RATE, cache_dir=tmp_path)
    assert len(trainings) == 2


def test_prepared_groups_keep_their_split():
    """Codes follow the groups of the test part, not those of all groups."""
    ranked = [
        RankedGroup(str(k), (Message("user", "x"),), ("a", "b"), cluster_id=name)
        for k, name in enumerate("zyxzy")
    ]
    prepared = Prepared(ranked, [], {}, training=np.array([2]), test=np.array([0, 1, 3, 4]))
    assert prepared.test_codes.tolist() == [1, 0, 1, 0]
