"""The policy training study from end to end, as small as it can be, and what it is made of."""

import json
from types import SimpleNamespace

import datasets
import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from posttrain.data.preferences import Message
from posttrain.data.reading import read_groups
from posttrain.data.sources.simulator.gold import gold, task_of
from posttrain.errors import UserError
from posttrain.evidence.claims import estimate
from posttrain.policy import rounds
from posttrain.policy.folders import load_policy, read_lines
from posttrain.policy.likelihood import response_log_probabilities
from posttrain.studies.policy_training import study
from posttrain.studies.policy_training.keys import Averaged, Filter, Loss, Measure, Question
from posttrain.studies.policy_training.report import arm_table, loss_table
from posttrain.studies.policy_training.study import LOSSES, STUDY, PolicyTrainingSettings
from posttrain.studies.rounds import full

SETTINGS = PolicyTrainingSettings(
    passes=[1, 2],
    rates=[3e-4, 6e-4],
    seeds=1,
    first_pairs=8,
    pairs=6,
    prompts=8,
    samples=5,
    max_new_tokens=32,
    evaluation_prompts=4,
    evaluation_samples=3,
    sft_epochs=1,
    batch_size=4,
    resamples=20,
)
#: Losses that are trained here; each costs a second for every number of passes.
TRAINED = {loss: LOSSES[loss] for loss in (Loss.PLAIN, Loss.LLAMA3)}
ENDS = ["estimate", "low", "high"]


@pytest.fixture
def few_losses(monkeypatch):
    monkeypatch.setattr(study, "LOSSES", TRAINED)


@pytest.fixture(scope="module")
def whole(praising, committed, tmp_path_factory):
    """A record, and the folder that keeps what it took."""
    datasets.disable_progress_bars()
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "LOSSES", TRAINED)
        record = STUDY.run("simulator", SETTINGS, cache_dir=folder)
    (kept,) = folder.iterdir()
    return SimpleNamespace(record=record, cache=folder, folder=kept / "seed-0")


def steps(whole, name):
    """What the steps of a name say of themselves, by folder."""
    return {
        path: json.loads((path / "step.json").read_text())
        for path in whole.folder.glob(f"round-1-{name}-*")
    }


def test_every_table_is_filled(whole):
    tables = whole.record.tables
    assert set(tables) == {"levels", "gains", "passes"}
    for name, table in tables.items():
        assert len(table), name
        assert np.isfinite(table[ENDS]).all().all(), name
    levels = tables["levels"]
    assert len(levels) == 2 * 2 * 6 + (len(Averaged) + len(Filter)) * 4
    moved = levels[levels["measure"] == Measure.DIVERGENCE]["estimate"]
    assert (moved.abs() > 1e-6).all()
    assert whole.record.data["clusters"] == 4


def test_readers_get_a_table_of_each(whole):
    assert len(loss_table(whole.record)) == 2 * 2
    assert list(arm_table(whole.record, Question.AVERAGE).index) == [*Averaged]
    assert list(arm_table(whole.record, Question.FILTER).index) == [*Filter]


def test_a_second_run_trains_and_samples_nothing(whole, praising, few_losses, monkeypatch):
    def stop(*_, **__):
        pytest.fail("made anew")

    for name in ("_sampled", "finetune", "optimize", "train_reward_model"):
        monkeypatch.setattr(rounds, name, stop)
    monkeypatch.setattr(full, "sample", stop)
    again = STUDY.run("simulator", SETTINGS, cache_dir=whole.cache)
    for name, table in whole.record.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table, check_exact=True)


def test_losses_and_passes_start_from_one_policy_and_see_the_same_pairs(whole):
    found = steps(whole, "dpo")
    assert len({tuple(account["inputs"]) for account in found.values()}) == 1
    trained = {
        tuple(account["training"][name] for name in (
            "num_train_epochs", "nll_weight", "mask_format_tokens", "learning_rate"
        )) for account in found.values()
    }  # fmt: skip
    assert trained == {
        (1, 0.0, False, 3e-4), (2, 0.0, False, 3e-4), (1, 0.2, True, 3e-4), (2, 0.2, True, 3e-4),
        (1, 0.2, True, 6e-4),
    }  # fmt: skip


def test_every_loss_is_what_its_name_says():
    assert [*LOSSES] == [*Loss]
    terms = {
        loss: (one["nll_weight"], one.get("nll_normalization"), one["mask_format_tokens"])
        for loss, one in LOSSES.items()
    }
    assert terms == {
        Loss.PLAIN: (0.0, None, False), Loss.NLL: (0.2, None, False),
        Loss.NLL_TOKEN: (0.2, "token", False), Loss.MASK: (0.0, None, True),
        Loss.LLAMA3: (0.2, None, True),
    }  # fmt: skip


def test_the_average_is_the_mean_of_the_weights_of_single_policies(whole):
    ((path, account),) = steps(whole, "average").items()
    assert len(account["inputs"]) == 2
    merged, *singles = (
        load_file(whole.folder / name / "model.safetensors")
        for name in (path.name, *account["inputs"])
    )
    rates = [
        json.loads((whole.folder / name / "step.json").read_text())["training"]["learning_rate"]
        for name in account["inputs"]
    ]
    assert rates == SETTINGS.rates
    for name, weight in merged.items():
        expected = (singles[0][name].double() + singles[1][name].double()) / 2
        np.testing.assert_allclose(weight.double(), expected, atol=1e-7)


def test_singles_are_averaged_and_the_best_is_one_of_them(whole):
    levels = whole.record.tables["levels"]
    scored = {}
    for path, account in steps(whole, "evaluation").items():
        first, *_ = account["inputs"]
        values = json.loads((path / "values.json").read_text())
        scored[first] = (np.mean(values["score"]), np.mean(values["gold"]))
    ((_, account),) = steps(whole, "average").items()
    singles = [scored[name] for name in account["inputs"]]
    where = {"question": Question.AVERAGE, "measure": Measure.GOLD}
    single = estimate(levels, arm=Averaged.SINGLE, **where)[0]
    assert single == pytest.approx(np.mean([one for _, one in singles]))
    assert estimate(levels, arm=Averaged.BEST, **where)[0] == pytest.approx(max(singles)[1])


def test_filters_keep_the_top_quarter_by_what_they_say(whole):
    ((path, _),) = steps(whole, "samples").items()
    rows = read_lines(path / "demonstrations.jsonl")
    assert len(rows) == 8
    shown = {
        account["by"]: read_lines(folder / "demonstrations.jsonl")
        for folder, account in steps(whole, "filtered").items()
    }
    assert set(shown) == set(Filter)
    assert shown[Filter.ALL] == rows
    golds = [
        gold(task_of([Message(**turn) for turn in row["prompt"]]), row["response"]) for row in rows
    ]
    for name, values in ((Filter.SCORE, [row["score"] for row in rows]), (Filter.GOLD, golds)):
        kept = [rows.index(row) for row in shown[name]]
        assert len(kept) == 2
        assert kept == sorted(kept)
        assert min(values[k] for k in kept) >= sorted(values)[-2]
    assert len(shown[Filter.RANDOM]) == 2
    assert all(row in rows for row in shown[Filter.RANDOM])
    sft = [account["inputs"] for account in steps(whole, "sft").values()]
    # Each from the pre-trained policy; the fifth is the one that DPO starts from.
    assert len({start for start, _ in sft}) == 1
    assert len(sft) == 5


def test_pairs_are_measured_against_the_policy_that_dpo_starts_from(whole):
    levels = whole.record.tables["levels"]
    (pairs,) = whole.folder.glob("round-1-annotations-*")
    groups = read_groups(pairs / "pairs.jsonl").groups
    asked = [group.prompt for group in groups]
    for path, account in steps(whole, "dpo").items():
        training = account["training"]
        if training["nll_weight"] or training["num_train_epochs"] == 1:
            continue
        for name, place in ((Measure.CHOSEN, 0), (Measure.REJECTED, 1)):
            texts = [group.responses[place] for group in groups]
            after, before = (
                response_log_probabilities(*load_policy(folder), asked, texts).mean()
                for folder in (path, whole.folder / account["inputs"][0])
            )
            found = estimate(levels, arm=Loss.PLAIN, passes=2, measure=name)[0]
            assert found == pytest.approx(after - before, abs=1e-6)
            assert found != 0
        return
    pytest.fail("plain DPO of two passes is missing")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"passes": []}, "give passes of 1 or more, and two rates or more"),
        ({"passes": [0, 1]}, "give passes of 1 or more, and two rates or more"),
        ({"rates": [1e-3]}, "give passes of 1 or more, and two rates or more"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"evaluation_samples": 1}, "evaluation_samples must be at least 2"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(given, words):
    with pytest.raises(UserError, match=words):
        PolicyTrainingSettings(**given)


def test_human_data_are_refused():
    with pytest.raises(UserError, match="only the simulator knows the truth"):
        STUDY.run("seeda", SETTINGS)
