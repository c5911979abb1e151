"""``posttrain dpo``: whole runs of a tiny model, resumed, filtered, and refused."""

import json
import re

import pytest
import torch
from command_line import refused, run
from policy_runs import interrupted, train
from reward_folders import save_leaning
from tiny_runs import assert_equal_weights, refusal, weights
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.data.preferences import to_record
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.policy.datasets import preference_set
from posttrain.policy.dpo import PreferenceConfig, optimize

GROUPS = [group.ranked for group in simulate(48, seed=3)]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(cache))


@pytest.fixture(scope="module")
def optimized(tmp_path_factory, tiny_checkpoint, cache):
    """The folder of a run that nothing interrupted; nothing may write into it."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTTRAIN_CACHE", str(cache))
        assert train("dpo", tiny_checkpoint, folder) == 0
    return folder


def test_a_run_is_that_of_the_policy_room(optimized, tiny_checkpoint, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype="auto")
    config = PreferenceConfig(
        str(tmp_path), per_device_train_batch_size=8, num_train_epochs=1, learning_rate=1e-3,
        max_length=256, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    optimize(model, AutoTokenizer.from_pretrained(tiny_checkpoint), preference_set(GROUPS), config)
    loaded = AutoModelForCausalLM.from_pretrained(optimized).state_dict()
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(loaded[name], weight, rtol=0, atol=0, msg=name)
    account = json.loads((optimized / "run.json").read_text())
    assert account["data"]["training"]["pairs"] == 48
    assert "rewards/accuracies" in account["logged"]
    assert "trained on preferences" in (optimized / "README.md").read_text()


def test_a_run_goes_on_as_if_nothing_had_happened(optimized, tiny_checkpoint, tmp_path, caplog):
    folder = interrupted(optimized, tmp_path / "killed", after=4)
    with caplog.at_level("INFO", logger="posttrain"):
        assert train("dpo", tiny_checkpoint, folder, "--resume") == 0
    assert f"resuming from {folder / 'checkpoint-4'}" in caplog.text
    # The reference is the model as it was, not that of the checkpoint.
    assert_equal_weights(optimized, folder)


def test_a_reference_of_its_own(optimized, tiny_checkpoint, tmp_path, capsys):
    same = tmp_path / "same"
    assert train("dpo", tiny_checkpoint, same, reference=tiny_checkpoint) == 0
    assert_equal_weights(optimized, same)
    other = tmp_path / "other"
    assert train("dpo", tiny_checkpoint, other, reference=optimized) == 0
    assert any(
        not torch.equal(weight, weights(optimized)[name]) for name, weight in weights(other).items()
    )
    tokenizer = AutoTokenizer.from_pretrained(optimized)
    foreign = tmp_path / "foreign"
    AutoModelForCausalLM.from_pretrained(optimized).save_pretrained(foreign)
    tokenizer.add_tokens(["another"])
    tokenizer.save_pretrained(foreign)
    code = train("dpo", tiny_checkpoint, tmp_path / "run", reference=foreign)
    assert "has another tokenizer" in refusal(capsys, code)


def test_adapters_are_trained_against_the_model_without_them(tiny_checkpoint, tmp_path):
    changes = {"lora_rank": 2, "learning_rate": 1e-2}
    assert train("dpo", tiny_checkpoint, tmp_path / "lora", **changes) == 0
    before, after = weights(tiny_checkpoint), weights(tmp_path / "lora")
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed
    assert all("_proj." in name for name in changed)
    # The same against an explicit reference.
    named = tmp_path / "named"
    assert train("dpo", tiny_checkpoint, named, reference=tiny_checkpoint, **changes) == 0
    assert_equal_weights(tmp_path / "lora", named, atol=1e-12)


def test_only_strong_pairs_are_trained_on(tiny_checkpoint, tmp_path, capsys):
    folder = tmp_path / "strong"
    assert train("dpo", tiny_checkpoint, folder, min_strength=3, save_steps=9) == 0
    found = json.loads((folder / "run.json").read_text())["data"]["training"]
    strong = sum(group.strength >= 3 for group in GROUPS)
    assert (found["pairs"], found["pairs below min_strength"]) == (strong, 48 - strong)
    data = tmp_path / "unrated.jsonl"
    row = to_record(GROUPS[0]) | {"strength": None}
    data.write_text(json.dumps(row) + "\n")
    code = train("dpo", tiny_checkpoint, tmp_path / "run", data=data, min_strength=3)
    assert "has no strength, so min_strength=3" in refusal(capsys, code)


def test_from_samples_to_preferences(tiny_checkpoint, tmp_path):
    """What ``posttrain sample`` writes with scores is trained on as it stands."""
    judge = save_leaning(tiny_checkpoint, tmp_path / "judge", GROUPS[:6], size=3.0)
    rated = tmp_path / "rated.jsonl"
    assert run("sample", "--model", tiny_checkpoint, "--data", "simulator:6", "--output", rated,
               "--samples", 3, "--reward_model", judge, "--max_new_tokens", 20) == 0  # fmt: skip
    folder = tmp_path / "run"
    assert train("dpo", tiny_checkpoint, folder, data=rated, save_steps=9) == 0
    data = json.loads((folder / "run.json").read_text())["data"]
    assert data["training"]["pairs"] > 6
    assert not any("columns" in note for note in data["notes"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss_type": "hinge"}, "is not sigmoid"),
        ({"nll_weight": -1}, "nll_weight must be at least 0"),
        ({"min_strength": 5}, "unknown min_strength 5; known: 1, 2, 3, 4"),
        ({"min_difference": -1}, "min_difference must be a number of at least 0"),
        ({"reference": "no/where/at/all"}, "gave no such model"),
        ({"max_length": 3}, "are read at most"),
        ({"sync_ref_model": "true", "resume": "true"}, "changes the reference"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_makes_no_sense_is_refused(tiny_checkpoint, tmp_path, capsys, changes, words):
    code = train("dpo", tiny_checkpoint, tmp_path / "run", **changes)
    assert re.search(re.escape(words), refusal(capsys, code))


def test_settings_do_not_clash_with_those_of_trl(capsys):
    assert refused("dpo", "--help_all") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: posttrain dpo")
    for name in ("--reference", "--min_strength", "--beta", "--nll_weight", "--pad_token"):
        assert name in shown
