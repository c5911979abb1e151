"""Rounds: what each step reads and leaves, and that a stopped run goes on as if it had not been."""

import itertools
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
from reward_folders import save_leaning
from safetensors.torch import load_file
from tiny_runs import assert_equal_weights
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from posttrain.data.preferences import Message, RankedGroup
from posttrain.data.reading import read_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.errors import UserError
from posttrain.evaluation.scoring import limits_for, score_groups
from posttrain.models import reward_model
from posttrain.policy import prompts, rounds
from posttrain.policy.folders import read_lines
from posttrain.policy.judges import Annotators
from posttrain.policy.rounds import (
    RoundRecipe,
    State,
    Workshop,
    annotate,
    fit_sft,
    keep_best,
    next_round,
)
from posttrain.policy.sampling import Sample, sample
from posttrain.rows.layout import LAYOUTS

#: Three seconds a round.
RECIPE = RoundRecipe(
    pairs=6,
    prompts=5,
    samples=4,
    max_new_tokens=32,
    reward_model={"learning_rate": 3e-3, "pairs_per_step": 2, "warmup_steps": 0},
    sft={"learning_rate": 1e-3},
    dpo={"learning_rate": 1e-3},
)
STEPS = ("annotations", "reward-model", "samples", "sft", "dpo")


@pytest.fixture(scope="module", autouse=True)
def quiet():
    datasets.disable_progress_bars()


def workshop_in(folder, checkpoint, **changes):
    given = {
        "draw": prompts.simulated(0), "judge": Annotators(), "base": "base", "judged": "simulator",
    }  # fmt: skip
    return Workshop(checkpoint=checkpoint, folder=folder, **given | changes)


def names(folder):
    """Folders under a final name."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def step(name):
    """Round and kind of a folder's name."""
    _, number, kind = name.rpartition("-")[0].split("-", 2)
    return int(number), kind


@pytest.fixture(scope="module")
def whole(tiny_checkpoint, tmp_path_factory):
    """Two rounds that nothing stopped: the folder, the states and what was reported."""
    folder, told = tmp_path_factory.mktemp("rounds"), []
    workshop = workshop_in(folder, tiny_checkpoint, report=told.append)
    first = next_round(workshop, RECIPE, State(tiny_checkpoint), 1)
    return SimpleNamespace(
        folder=folder, told=told, states=[first, next_round(workshop, RECIPE, first, 2)]
    )


def test_rounds_leave_a_folder_for_every_step(whole):
    left = names(whole.folder)
    assert Counter(map(step, left)) == {(r, kind): 1 for r in (1, 2) for kind in STEPS}
    assert sorted(whole.told) == [f"{name.rpartition('-')[0]}: started" for name in left]
    assert not [path for path in whole.folder.iterdir() if path.name.startswith(".")]
    assert all((whole.folder / name / "step.json").is_file() for name in left)


def test_a_state_names_what_its_round_made(whole):
    first, second = whole.states
    assert [step(path.name) for path in second.annotations] == [(r, "annotations") for r in (1, 2)]
    assert [step(path.name) for path in second.reward_models] == [
        (r, "reward-model") for r in (1, 2)
    ]
    assert [step(path.name) for path in second.kept] == [(r, "samples") for r in (1, 2)]
    assert [step(state.policy.name) for state in whole.states] == [(1, "dpo"), (2, "dpo")]
    assert second.annotations[:1] == first.annotations


def test_stock_libraries_load_every_model(whole, tiny_checkpoint):
    for name in names(whole.folder):
        kinds = {
            "sft": AutoModelForCausalLM, "dpo": AutoModelForCausalLM,
            "reward-model": AutoModelForSequenceClassification,
        }  # fmt: skip
        if (kind := kinds.get(step(name)[1])) is None:
            continue
        model, info = kind.from_pretrained(
            whole.folder / name, dtype="auto", output_loading_info=True
        )
        assert not any(info.values()), name
        tokenizer = AutoTokenizer.from_pretrained(whole.folder / name)
        start = AutoTokenizer.from_pretrained(tiny_checkpoint)
        assert tokenizer.get_vocab() == start.get_vocab()
        assert tokenizer.chat_template == start.chat_template
        if kind is AutoModelForSequenceClassification:
            assert model.config.num_labels == 1


def test_every_step_trains(whole, tiny_checkpoint):
    folders = {step(name): whole.folder / name for name in names(whole.folder)}
    weight = "model.layers.0.mlp.up_proj.weight"
    start = load_file(tiny_checkpoint / "model.safetensors")[weight]
    found = {
        place: load_file(path / "model.safetensors")[weight].to(start)
        for place, path in folders.items()
        if place[1] in ("sft", "dpo", "reward-model")
    }
    assert len(found) == 6
    found[0, "start"] = start
    same = [
        (one, two) for one, two in itertools.combinations(found, 2) if found[one].equal(found[two])
    ]
    assert same == []


def test_annotations_are_pairs_of_the_policys_answers(whole):
    (path,) = whole.states[0].annotations
    groups = read_groups(path / "pairs.jsonl").groups
    assert 1 <= len(groups) <= RECIPE.pairs
    assert [group.id for group in groups] == [f"round-1-{n:06d}" for n in range(len(groups))]
    drawn = prompts.simulated(0)("annotations 1", RECIPE.pairs)
    assert [group.prompt for group in groups] == [
        prompt for prompt in drawn if prompt in {group.prompt for group in groups}
    ]


def test_a_finished_run_makes_nothing_anew(whole, tiny_checkpoint):
    before = {path: path.stat().st_mtime_ns for path in whole.folder.rglob("*")}
    workshop = workshop_in(whole.folder, tiny_checkpoint, report=pytest.fail)
    first = next_round(workshop, RECIPE, State(tiny_checkpoint), 1)
    assert [first, next_round(workshop, RECIPE, first, 2)] == whole.states
    assert {path: path.stat().st_mtime_ns for path in whole.folder.rglob("*")} == before


class StoppedError(Exception):
    """The machine went away."""


def test_a_run_stopped_in_every_step_ends_as_one_that_was_not(
    whole, tiny_checkpoint, tmp_path, monkeypatch
):
    stopped = set()

    def once(name, function):
        def stopping(*given, **named):
            function(*given, **named)
            (target,) = (one for one in given if "/." in str(one))
            if target.name[:12] not in stopped:
                stopped.add(target.name[:12])
                file = target if target.is_file() else target / "model.safetensors"
                os.truncate(file, file.stat().st_size // 2)
                raise StoppedError(target)

        monkeypatch.setattr(rounds, name, stopping)

    for name in ("write_groups", "write_lines", "save_policy"):
        once(name, getattr(rounds, name))

    told = []
    workshop = workshop_in(tmp_path, tiny_checkpoint, report=told.append)
    # Both files of the samples, and those of the other steps.
    for _ in range(6):
        with pytest.raises(StoppedError):
            next_round(workshop, RECIPE, State(tiny_checkpoint), 1)
        # What was being written is gone, and only whole steps have their names.
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
        assert all((tmp_path / name / "step.json").is_file() for name in names(tmp_path))
    next_round(workshop, RECIPE, State(tiny_checkpoint), 1)
    expected = {"annotations": 2, "reward-model": 2, "samples": 3, "sft": 2, "dpo": 2}
    assert Counter(told) == {f"round-1-{kind}: started": n for kind, n in expected.items()}
    assert names(tmp_path) == [name for name in names(whole.folder) if step(name)[0] == 1]
    for name in names(tmp_path):
        for path in (whole.folder / name).iterdir():
            again = tmp_path / name / path.name
            if path.suffix == ".safetensors":
                assert_equal_weights(again.parent, path.parent)
            else:
                assert again.read_bytes() == path.read_bytes()


# What steps read, without any training: answers say who gave them.


class SecondWins:
    """A judge that remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def compare(self, prompts, pairs, *, name, seed):
        self.asked.append((name, seed, list(pairs)))
        return [
            RankedGroup(f"any-{n}", prompt, (second, first))
            for n, (prompt, (first, second)) in enumerate(zip(prompts, pairs, strict=True))
        ]


@pytest.fixture
def paper(monkeypatch, tmp_path):
    """Rounds on paper: all steps and files are real, but for models, samples and scores."""
    told = SimpleNamespace(
        sampled=[], scorers=[], starts=[], sft=[], dpo=[], reward_model=[], purposes=[], report=[]
    )

    def sampled(workshop, policy, asked, settings):
        told.sampled.append((policy.name, settings))
        return [
            [Sample(f"{policy.name} {place} {k}", True, 0.0) for k in range(settings.samples)]
            for place in range(len(asked))
        ]

    def load(folder, **_):
        told.scorers.append(folder.name)
        return SimpleNamespace(to=lambda device: None), None

    def start(folder):
        told.starts.append(folder.name)
        return None, None

    def train(checkpoint, groups, arguments, *, seed):
        told.reward_model.append((checkpoint.name, [group.chosen for group in groups], seed))

    def finetune(model, tokenizer, data, config):
        told.sft.append(([row[0]["content"] for row in data["completion"]], config))

    def optimize(model, tokenizer, data, config):
        told.dpo.append(([row[0]["content"] for row in data["chosen"]], config))

    monkeypatch.setattr(rounds, "_sampled", sampled)
    monkeypatch.setattr(rounds.reward_model, "load", load)
    monkeypatch.setattr(rounds, "load_policy", start)
    monkeypatch.setattr(rounds, "train_reward_model", train)
    monkeypatch.setattr(rounds, "finetune", finetune)
    monkeypatch.setattr(rounds, "optimize", optimize)
    monkeypatch.setattr(rounds, "save_policy", lambda *_: None)
    monkeypatch.setattr(
        rounds,
        "score_responses",
        lambda model, tokenizer, asked, texts: [np.arange(len(one)) * 1.0 for one in texts],
    )

    def draw(purpose, count):
        told.purposes.append((purpose, count))
        return prompts.simulated(0)(purpose, count)

    told.judge, told.start = SecondWins(), State(Path("start"))
    told.workshop = workshop_in(
        tmp_path, Path("start"), draw=draw, judge=told.judge, report=told.report.append
    )

    def run(count, **changes):
        recipe, states = replace(RECIPE, **changes), [told.start]
        for number in range(1, count + 1):
            states.append(next_round(told.workshop, recipe, states[-1], number))
        return states

    told.run = run
    return told


def inputs(folder, number, kind):
    """What a step says that it read, as rounds and kinds."""
    (path,) = folder.glob(f"round-{number}-{kind}-????????????????")
    account = json.loads((path / "step.json").read_text())
    assert account["step"] == f"round-{number}-{kind}"
    return [name if name == "start" else step(name) for name in account["inputs"]]


#: What the steps of round 3 read, as in Llama 3.
USUAL = {
    "annotations": [(2, "dpo")],
    "reward-model": [(1, "annotations"), (2, "annotations"), (3, "annotations")],
    "samples": [(2, "dpo"), (3, "reward-model")],
    "sft": ["start", (3, "samples")],
    "dpo": [(3, "sft"), (3, "annotations")],
}
ALL_SAMPLES = [(1, "samples"), (2, "samples"), (3, "samples")]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"restart": False}, {"sft": [(2, "dpo"), (3, "samples")]}),
        ({"all_demonstrations": True}, {"sft": ["start", *ALL_SAMPLES]}),
        ({"all_preferences": True}, {"dpo": [(3, "sft"), *USUAL["reward-model"]]}),
        (
            {"fresh_reward_model": False},
            {"samples": [(2, "dpo"), (1, "reward-model")], "reward-model": None},
        ),
        (
            {"stages": ["sft"]},
            {
                "annotations": [(2, "sft")],
                "samples": [(2, "sft"), (3, "reward-model")],
                "dpo": None,
            },
        ),
        (
            {"stages": ["dpo"], "restart": False},
            {"samples": None, "sft": None, "dpo": [(2, "dpo"), (3, "annotations")]},
        ),
    ],
    ids=lambda value: "-".join(value),
)
def test_steps_read_what_the_recipe_says(paper, changes, expected):
    paper.run(3, **changes)
    folder = paper.workshop.folder
    for kind, usual in USUAL.items():
        if (wanted := expected.get(kind, usual)) is None:
            assert not list(folder.glob(f"round-3-{kind}-*"))
        else:
            assert inputs(folder, 3, kind) == wanted, kind


def test_trainers_are_given_what_the_steps_say(paper):
    paper.run(2)
    policies = [state for state in names(paper.workshop.folder) if step(state)[1] == "dpo"]
    first, second = "start", next(name for name in policies if step(name)[0] == 1)
    assert [(name, one.samples) for name, one in paper.sampled] == [
        (first, 2), (first, 4), (second, 2), (second, 4),
    ]  # fmt: skip
    pairs = [[f"{name} {place} 1" for place in range(6)] for name in (first, second)]
    best = [[f"{name} {place} 3" for place in range(5)] for name in (first, second)]
    assert [one[:2] for one in paper.reward_model] == [
        ("start", pairs[0]), ("start", pairs[0] + pairs[1]),
    ]  # fmt: skip
    assert [shown for shown, _ in paper.sft] == best
    assert [shown for shown, _ in paper.dpo] == pairs
    assert [step(name) for name in paper.scorers] == [(1, "reward-model"), (2, "reward-model")]
    assert [name if name == "start" else step(name) for name in paper.starts] == [
        "start", (1, "sft"), "start", (2, "sft"),
    ]  # fmt: skip


def test_all_rounds_data_reach_the_trainers_where_they_should(paper):
    paper.run(2, all_demonstrations=True, all_preferences=True, restart=False)
    (first, _), (second, _) = paper.sft
    assert second[:5] == first
    assert len(second) == 10
    (first, _), (second, _) = paper.dpo
    assert second[:6] == first
    assert len(second) == 12
    assert [name if name == "start" else step(name) for name in paper.starts] == [
        "start", (1, "sft"), (1, "dpo"), (2, "sft"),
    ]  # fmt: skip


def test_what_came_before_the_first_round_is_read_by_reward_models_alone(paper):
    before = paper.workshop.make(
        "first-annotations", {}, [],
        lambda path: rounds.write_groups(path / "pairs.jsonl", [
            RankedGroup("a", (Message("user", "count : owl"),), ("good", "bad"))
        ]),
    )  # fmt: skip
    paper.start = State(Path("start"), annotations=(before,))
    paper.run(1)
    assert paper.reward_model[0][1][0] == "good"
    assert len(paper.reward_model[0][1]) == 7
    assert len(paper.dpo[0][0]) == 6


def test_every_round_and_purpose_draws_its_own(paper):
    paper.run(2)
    assert paper.purposes == [
        ("annotations 1", 6), ("samples 1", 5), ("annotations 2", 6), ("samples 2", 5),
    ]  # fmt: skip
    assert [name for name, *_ in paper.judge.asked] == ["round-1", "round-2"]
    judged = [seed for _, seed, _ in paper.judge.asked]
    drawn = [one.sampling_seed for _, one in paper.sampled]
    trained = [one.seed for _, one in paper.sft]
    assert len(set(judged)) == len(set(trained)) == 2
    assert len(set(drawn)) == 4
    other = paper.workshop.folder
    paper.sampled.clear()
    paper.run(2, seed=1)
    assert not set(drawn) & {one.sampling_seed for _, one in paper.sampled}
    assert len(names(other)) == 20


def test_training_arguments_reach_the_trainers(paper):
    paper.run(
        1, sft={"num_train_epochs": 7, "seed": 5}, dpo={"nll_weight": 0.5, "learning_rate": 0.25}
    )
    ((_, sft),), ((_, dpo),) = paper.sft, paper.dpo
    assert (sft.num_train_epochs, sft.seed, sft.use_cpu) == (7, 5, True)
    assert (dpo.nll_weight, dpo.learning_rate) == (0.5, 0.25)
    for config in (sft, dpo):
        assert (config.save_strategy, config.report_to, config.max_length) == ("no", [], None)


def test_answers_that_are_alike_or_empty_are_not_compared(paper, monkeypatch):
    answers = [("a", "b"), ("a", "a"), ("", "b"), ("a", ""), ("", ""), ("c", "d")]
    monkeypatch.setattr(
        rounds, "_sampled", lambda *_: [[Sample(text, True, 0.0) for text in p] for p in answers]
    )
    folder = annotate(paper.workshop, RECIPE, Path("start"), 1)
    ((_, _, pairs),) = paper.judge.asked
    assert pairs == [("a", "b"), ("c", "d")]
    groups = read_groups(folder / "pairs.jsonl").groups
    asked = prompts.simulated(0)("annotations 1", 6)
    assert [(one.prompt, one.responses) for one in groups] == [
        (asked[0], ("b", "a")), (asked[5], ("d", "c")),
    ]  # fmt: skip


def test_recipes_that_differ_later_share_what_they_can(paper):
    paper.run(2)
    before, paper.report[:] = names(paper.workshop.folder), []
    for changes, anew in (
        ({"all_demonstrations": True}, ["round-2-sft", "round-2-dpo"]),
        ({"all_preferences": True}, ["round-2-dpo"]),
        ({"fresh_reward_model": False}, ["round-2-samples", "round-2-sft", "round-2-dpo"]),
        ({"restart": False}, ["round-2-sft", "round-2-dpo"]),
    ):
        paper.run(2, **changes)
        assert paper.report == [f"{name}: started" for name in anew]
        paper.report.clear()
    assert set(before) < set(names(paper.workshop.folder))


def test_a_kept_reward_model_serves_every_round(paper):
    first, second, third = paper.run(3, fresh_reward_model=False)[1:]
    assert first.reward_models == second.reward_models == third.reward_models
    assert len(paper.reward_model) == 1
    assert paper.scorers == [first.reward_models[0].name] * 3


@pytest.mark.parametrize(
    ("changes", "anew"),
    [
        ({"pairs": 7}, "annotations"),
        ({"temperature": 0.7}, "annotations"),
        ({"max_new_tokens": 31}, "annotations"),
        ({"seed": 1}, "annotations"),
        ({"reward_model": {"learning_rate": 2e-3}}, "reward-model"),
        ({"prompts": 6}, "samples"),
        ({"samples": 5}, "samples"),
        ({"share": 0.5}, "samples"),
        ({"sft": {"learning_rate": 2e-3}}, "sft"),
        ({"dpo": {"learning_rate": 2e-3}}, "dpo"),
    ],
    ids=str,
)
def test_a_changed_setting_makes_its_step_and_all_that_follow_anew(paper, changes, anew):
    paper.run(1)
    paper.report.clear()
    paper.run(1, **changes)
    expected = STEPS[STEPS.index(anew) :]
    assert paper.report == [f"round-1-{kind}: started" for kind in expected]


@pytest.mark.parametrize("changes", [{"base": "other"}, {"judged": "people"}])
def test_another_checkpoint_or_judge_makes_everything_anew(paper, changes):
    paper.run(1)
    paper.report.clear()
    paper.workshop = replace(paper.workshop, **changes)
    paper.run(1)
    assert len(paper.report) == 5


def test_another_version_of_a_library_or_of_the_code_makes_everything_anew(paper, monkeypatch):
    paper.run(1)
    paper.report.clear()
    monkeypatch.setattr(rounds, "VERSION", rounds.VERSION + 1)
    paper.run(1)
    assert len(paper.report) == 5


# What is kept, by real samples and a real reward model.


@pytest.fixture(scope="module")
def scorer(tiny_checkpoint, tmp_path_factory):
    groups = [group.ranked for group in simulate(6, seed=4)]
    return save_leaning(tiny_checkpoint, tmp_path_factory.mktemp("s") / "leaning", groups, size=3.0)


def scores_of(folder, asked, texts):
    """Scores as ``posttrain score`` gives them, each response in a row of its own."""
    model, tokenizer = reward_model.load(folder)
    groups = [
        RankedGroup(f"{place}-{k}", prompt, (text, f"{text} .", f"{text} . ."))
        for place, (prompt, own) in enumerate(zip(asked, texts, strict=True))
        for k, text in enumerate(own)
    ]
    layout = LAYOUTS["separate"]
    found = score_groups(model, tokenizer, groups, layout, limits_for(model, layout))
    scores = iter([one.scores["edited"] for one in found])
    return [[next(scores) for _ in own] for own in texts]


def test_the_control_keeps_an_answer_of_each_prompt_whatever_it_scores(
    tiny_checkpoint, scorer, tmp_path
):
    recipe = replace(RECIPE, prompts=30, samples=6, max_new_tokens=7)
    workshop = workshop_in(tmp_path, tiny_checkpoint)
    kept = {
        random: keep_best(
            workshop, replace(recipe, random_choice=random), tiny_checkpoint, scorer, 1
        )
        for random in (False, True)
    }
    assert kept[False] != kept[True]
    samples = {random: read_lines(path / "samples.jsonl") for random, path in kept.items()}
    assert samples[False] == samples[True]
    best, control = (read_lines(kept[random] / "demonstrations.jsonl") for random in kept)
    assert [row["prompt"] for row in control] == [row["prompt"] for row in best]
    for row, shown in zip(samples[True], control, strict=True):
        assert shown["score"] == row["scores"][row["responses"].index(shown["response"])]
    behind = [one["score"] - other["score"] for one, other in zip(best, control, strict=True)]
    assert min(behind) >= 0
    # A random one of six is the best only now and then, if they differ.
    differ = [max(row["scores"]) > min(row["scores"]) for row in samples[True]]
    assert sum(differ) >= 10
    assert np.count_nonzero(behind) > sum(differ) / 3


@pytest.mark.parametrize(("share", "count"), [(1.0, 12), (0.3, 4), (0.01, 1)])
def test_the_best_finished_answers_of_the_best_prompts_are_kept(
    tiny_checkpoint, scorer, tmp_path, monkeypatch, share, count
):
    drawn = []

    def seen(*given):
        drawn.extend(sample(*given))
        return iter(drawn)

    monkeypatch.setattr(rounds, "sample", seen)
    recipe = replace(RECIPE, prompts=12, samples=6, max_new_tokens=7, share=share)
    workshop = workshop_in(tmp_path, tiny_checkpoint)
    folder = keep_best(workshop, recipe, tiny_checkpoint, scorer, 1)
    asked = workshop.draw("samples 1", 12)
    usable = [[one for one in own if one.finished and one.text] for own in drawn]
    texts = [[one.text for one in own] for own in usable]
    cut = [[one.text for one in own if not one.finished and one.text] for own in drawn]
    assert all(texts)
    scores = scores_of(scorer, asked, texts)

    rows = read_lines(folder / "samples.jsonl")
    assert [row["responses"] for row in rows] == texts
    assert [row["prompt"] for row in rows] == [
        [{"role": turn.role, "content": turn.content} for turn in prompt] for prompt in asked
    ]
    for row, own in zip(rows, scores, strict=True):
        assert row["scores"] == pytest.approx(own, abs=1e-5)

    heights = [max(own) for own in scores]
    threshold = sorted(heights)[-count]
    kept = [place for place, height in enumerate(heights) if height >= threshold]
    shown = read_lines(folder / "demonstrations.jsonl")
    assert len(shown) == count
    assert [row["prompt"] for row in shown] == [rows[place]["prompt"] for place in kept]
    assert [row["response"] for row in shown] == [
        texts[place][int(np.argmax(scores[place]))] for place in kept
    ]
    assert [row["score"] for row in shown] == pytest.approx([heights[p] for p in kept], abs=1e-5)
    # Answers that were cut would have been the best of some prompts.
    unfinished = scores_of(scorer, asked, cut)
    assert any(
        max(other, default=-np.inf) > height
        for other, height in zip(unfinished, heights, strict=True)
    )


def test_a_prompt_without_a_finished_answer_has_nothing_to_keep(
    tiny_checkpoint, scorer, tmp_path, monkeypatch
):
    def drawn(model, tokenizer, asked, settings):
        for place in range(len(asked)):
            yield [Sample("", True, 0.0), Sample(f"sure : {'owl ' * place}", place != 1, 0.0)]

    monkeypatch.setattr(rounds, "sample", drawn)
    workshop = workshop_in(tmp_path, tiny_checkpoint)
    recipe = replace(RECIPE, prompts=3, samples=2)
    folder = keep_best(workshop, recipe, tiny_checkpoint, scorer, 1)
    first, _, third = workshop.draw("samples 1", 3)
    for name in ("samples", "demonstrations"):
        rows = read_lines(folder / f"{name}.jsonl")
        assert [row["prompt"][-1]["content"] for row in rows] == [
            first[-1].content, third[-1].content,
        ]  # fmt: skip
    assert [row["response"] for row in rows] == ["sure : ", "sure : owl owl "]


def test_a_policy_that_finishes_no_answer_is_refused(
    tiny_checkpoint, scorer, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        rounds, "sample", lambda _1, _2, asked, _3: ([Sample("a", False, 0.0)] for _ in asked)
    )
    workshop = workshop_in(tmp_path, tiny_checkpoint)

    def keep_and_train():
        kept = keep_best(workshop, RECIPE, tiny_checkpoint, scorer, 1)
        fit_sft(workshop, RECIPE, tiny_checkpoint, [kept], 1)

    with pytest.raises(UserError):
        keep_and_train()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pairs": 0}, "pairs must be at least 1"),
        ({"prompts": 0}, "prompts must be at least 1"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"stages": []}, "stages must be some of sft and dpo"),
        ({"stages": ["sft", "ppo"]}, "stages must be some of sft and dpo"),
        ({"share": 0.0}, "share must be above 0 and at most 1"),
        ({"share": 1.01}, "share must be above 0 and at most 1"),
        ({"share": float("nan")}, "share must be above 0 and at most 1"),
        ({"stages": ["dpo"]}, "set restart to false"),
    ],
    ids=str,
)
def test_recipes_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        RoundRecipe(**changes)


def test_llama_3_is_the_default():
    recipe = RoundRecipe()
    assert (recipe.stages, recipe.restart, recipe.samples) == (["sft", "dpo"], True, 10)
    assert not recipe.all_demonstrations
    assert not recipe.all_preferences
    assert recipe.fresh_reward_model
