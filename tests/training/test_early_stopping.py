"""Early stopping: what it implies, what contradicts it, and that the best model remains."""

import json
import logging
import shutil

import pytest
import torch
from tiny_runs import assert_equal_weights, refusal, train, weights

from posttrain.errors import UserError
from posttrain.models import reward_model
from posttrain.models.adapters import merge
from posttrain.training.checkpoints import checkpoints_in
from posttrain.training.config import RankingConfig
from posttrain.training.saving import finish


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path_factory.getbasetemp() / "stopping-cache"))


def config(**settings):
    return RankingConfig("out", use_cpu=True, report_to="none", **settings)


@pytest.mark.parametrize(
    ("settings", "saved"),
    [
        ({"eval_steps": 20}, ("steps", 20)),
        ({"eval_strategy": "steps"}, ("steps", 10)),
        ({"eval_strategy": "steps", "eval_steps": 0.1}, ("steps", 0.1)),
        ({"eval_strategy": "epoch"}, ("epoch", 500)),
        ({"eval_steps": 20, "save_steps": 20}, ("steps", 20)),
        ({"eval_steps": 20, "save_strategy": "best"}, ("best", 500)),
    ],
    ids=str,
)
def test_a_checkpoint_is_written_with_each_evaluation(settings, saved):
    made = config(early_stopping_patience=2, **settings)
    assert (made.save_strategy, made.save_steps) == saved
    assert made.eval_strategy != "no"
    assert (made.metric_for_best_model, made.greater_is_better) == ("loss", False)
    assert made.load_best_model_at_end
    known = {name for name, one in RankingConfig.__dataclass_fields__.items() if one.init}
    again = RankingConfig(**{k: v for k, v in made.to_dict().items() if k in known})
    assert again.to_dict() == made.to_dict()


def test_more_accuracy_is_better():
    made = config(early_stopping_patience=2, eval_steps=5, metric_for_best_model="eval_accuracy")
    assert made.greater_is_better


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "set eval_steps, or eval_strategy to epoch"),
        ({"early_stopping_patience": 0}, "early_stopping_patience must be at least 1"),
        ({"eval_steps": 20, "early_stopping_threshold": -1.0}, "must not be negative"),
        ({"eval_steps": 20, "save_steps": 40}, "save_steps=40 say otherwise"),
        ({"eval_steps": 20, "save_strategy": "no"}, "save_strategy=no"),
        ({"eval_steps": 20, "metric_for_best_model": "ties"}, "does not say which model is"),
        ({"eval_steps": 20, "metric_for_best_model": "accuracyx"}, "does not say which model is"),
        ({"eval_steps": 20, "greater_is_better": True}, "contradicts metric_for_best_model="),
    ],
    ids=str,
)
def test_what_contradicts_it_is_refused(settings, expected):
    with pytest.raises(UserError, match=expected):
        config(**({"early_stopping_patience": 2} | settings))


#: So fast that evaluation soon gets worse.
FAST = {
    "learning_rate": 0.1,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "num_train_epochs": 3,
    "eval_steps": 2,
    "save_steps": None,
    "save_total_limit": 1,
    "early_stopping_patience": 3,
}


def losses(folder):
    state = json.loads((folder / "trainer_state.json").read_text())
    return {one["step"]: one["eval_loss"] for one in state["log_history"] if "eval_loss" in one}


@pytest.mark.parametrize("changes", [{}, {"lora_rank": 2, "learning_rate": 0.3}], ids=str)
def test_the_best_model_remains(tiny_checkpoint, tmp_path, changes, caplog):
    caplog.set_level(logging.INFO)
    run = tmp_path / "run"
    assert train(tiny_checkpoint, run, **FAST | changes) == 0
    found = losses(run)
    best = min(found, key=found.get)
    # Three evaluations without a better one, and no more of the thirty steps.
    assert max(found) == best + 3 * FAST["eval_steps"] < 30
    assert json.loads((run / "run.json").read_text())["steps"] == max(found)
    assert f"the model after step {best} remains" in caplog.text
    assert [path.name for path in checkpoints_in(run)] == [f"checkpoint-{best}"]
    # What is saved is that checkpoint, its adapters merged.

    kept, _ = reward_model.load(run / f"checkpoint-{best}")
    kept = finish(merge(kept))
    assert kept.state_dict().keys() == weights(run).keys()
    for name, weight in kept.state_dict().items():
        torch.testing.assert_close(weights(run)[name], weight, rtol=0, atol=1e-12, msg=name)


def test_a_run_that_goes_on_counts_on(tiny_checkpoint, tmp_path, capsys):
    settings = FAST | {"save_total_limit": None}
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert train(tiny_checkpoint, whole, **settings) == 0
    last = max(losses(whole))
    # Checkpoints name the best one by its path, and a run may be moved.
    whole = whole.rename(tmp_path / "moved")
    for step in (last, last - 2):
        shutil.rmtree(resumed, ignore_errors=True)
        shutil.copytree(whole, resumed)
        (resumed / "config.json").unlink()
        for path in checkpoints_in(resumed):
            if int(path.name.removeprefix("checkpoint-")) > step:
                shutil.rmtree(path)
        assert train(tiny_checkpoint, resumed, "--resume", **settings) == 0
        assert_equal_weights(whole, resumed)
        assert losses(resumed) == losses(whole)
        account = json.loads((resumed / "run.json").read_text())
        assert account["steps"] == last
        assert account["best_step"] == min(losses(whole), key=losses(whole).get)
    best = min(losses(whole), key=losses(whole).get)
    (resumed / "config.json").unlink()
    shutil.rmtree(resumed / f"checkpoint-{best}")
    code = train(tiny_checkpoint, resumed, "--resume", **settings)
    assert f"checkpoint-{best}, the best one so far, is gone" in refusal(capsys, code)
