"""``posttrain train`` on prompts that recur: merged or not, the same weights, for fewer tokens."""

import json
from dataclasses import replace

import pytest
from tiny_runs import assert_equal_weights, refusal, train

from posttrain.commands.train_settings import TrainSettings
from posttrain.data.reading import write_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.models import reward_model
from posttrain.training.config import RankingConfig


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(cache))


@pytest.fixture
def repeated(tmp_path):
    """Twenty prompts, each with its ranking, a contradiction, and a response of another prompt."""
    groups = [group.ranked for group in simulate(20, seed=5, edited_share=0.5)]
    turned = [replace(g, id=f"{g.id}, turned", responses=g.responses[::-1]) for g in groups]
    others = [
        replace(g, id=f"{g.id}, other", responses=(g.chosen, other.rejected))
        for g, other in zip(groups, groups[1:] + groups[:1], strict=True)
    ]
    write_groups(tmp_path / "repeated.jsonl", [*groups, *turned, *others])
    return str(tmp_path / "repeated.jsonl")


@pytest.mark.parametrize("layout", ["exact", "separate"])
def test_weights_are_those_of_training_on_each_record_alone(
    tiny_checkpoint, repeated, tmp_path, layout
):
    for name, options in {
        "alone": {"merge_prompts": False},
        "merged": {},
        # Cut into parts, which stay in their step.
        "cut": {"max_tokens_per_device": 60},
    }.items():
        settings = {
            "data": repeated,
            "layout": layout,
            "groups_per_step": None,
            # All of them: what a step holds does not depend on how they are grouped.
            "pairs_per_step": 1000,
            "max_steps": 4,
            "eval_fraction": 0,
        }
        assert train(tiny_checkpoint, tmp_path / name, **settings | options) == 0
    for name in ("merged", "cut"):
        assert_equal_weights(tmp_path / "alone", tmp_path / name, atol=1e-12)
    counts = {
        name: json.loads((tmp_path / name / "run.json").read_text())["data"]["training"]
        for name in ("alone", "merged", "cut")
    }
    assert counts["alone"]["groups"] == counts["merged"]["groups"] == 60
    assert counts["merged"]["groups after merging"] == 20
    saved = counts["merged"]["tokens without merging"] - counts["merged"]["tokens"]
    assert saved > 0
    assert counts["cut"]["tokens computed again in other parts of a group"] > 0
    card = (tmp_path / "merged" / "README.md").read_text()
    assert f"{counts['merged']['tokens']:,} tokens" in card
    assert f"{counts['merged']['tokens without merging']:,} tokens without merging" in card


def test_groups_of_a_step_are_counted_before_merging(tiny_checkpoint, repeated, tmp_path):
    settings = {"data": repeated, "eval_fraction": 0, "max_steps": -1, "groups_per_step": 12}
    for name, merged in (("alone", False), ("merged", True)):
        run = train(tiny_checkpoint, tmp_path / name, merge_prompts=merged, **settings)
        assert run == 0
        assert json.loads((tmp_path / name / "run.json").read_text())["steps"] == 5


@pytest.mark.parametrize("changes", [{"layout": "causal"}, {"loss_type": "plackett-luce"}])
def test_merging_that_would_change_what_is_optimised_is_refused_and_not_done(
    tiny_checkpoint, repeated, tmp_path, capsys, changes
):
    settings = {"data": repeated, "max_steps": 1, "eval_fraction": 0, **changes}
    code = train(tiny_checkpoint, tmp_path / "run", merge_prompts=True, **settings)
    found = refusal(capsys, code)
    assert "merge_prompts goes with exact layouts and loss_type pairs" in found
    assert train(tiny_checkpoint, tmp_path / "run", **settings) == 0
    account = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "groups after merging" not in account["data"]["training"]


@pytest.mark.parametrize(
    ("attention", "layout", "most"),
    [("shared_prefix", "exact", 8000), ("sdpa", "exact", 2048), ("sdpa", "separate", 8000)],
)
def test_rows_with_a_mask_for_every_two_tokens_are_kept_short(
    tiny_checkpoint, tmp_path, attention, layout, most
):
    model, _ = reward_model.load(tiny_checkpoint, attention=attention)
    settings = TrainSettings(model="tiny", data=["simulator:9"], layout=layout)
    config = RankingConfig(str(tmp_path), use_cpu=True, max_tokens_per_device=8000)
    assert settings.merging(config, model).max_tokens == most
