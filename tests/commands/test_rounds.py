"""``posttrain rounds``: what is made and told, that it goes on where it stopped, and refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import refused, run
from forked import die, forked
from reward_folders import save_leaning
from tiny_runs import assert_equal_weights, refusal

from posttrain.commands import rounds as command
from posttrain.data.reading import read_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.evaluation.scoring import score_responses
from posttrain.models import reward_model
from posttrain.policy import rounds
from posttrain.policy.rounds import RoundRecipe, State

CONFIG = {
    "rounds": 1,
    "pairs": 5,
    "prompts": 4,
    "samples": 3,
    "max_new_tokens": 24,
    "evaluation_prompts": 3,
    "device": "cpu",
    "reward_model": {"learning_rate": 3e-3, "pairs_per_step": 2, "warmup_steps": 0},
    "sft": {"learning_rate": 1e-3, "num_train_epochs": 1},
    "dpo": {"learning_rate": 1e-3, "num_train_epochs": 1},
}
STEPS = ("annotations", "dpo", "measured", "reward-model", "samples", "sft")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(cache))


def options(checkpoint, folder, **changes):
    """The command line; the settings stand in a file beside the folder."""
    config = Path(folder).with_suffix(".yaml")
    given = CONFIG | {"model": str(checkpoint), "output_dir": str(folder)} | changes
    config.write_text(yaml.safe_dump({k: v for k, v in given.items() if v is not None}))
    return ("rounds", "--config", config)


@pytest.fixture(scope="module")
def whole(tiny_checkpoint, tmp_path_factory, cache):
    """The folder of a run that nothing stopped; nothing may write into it."""
    folder = tmp_path_factory.mktemp("rounds") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTTRAIN_CACHE", str(cache))
        assert run(*options(tiny_checkpoint, folder)) == 0
    return folder


@pytest.fixture(scope="module")
def judge(tiny_checkpoint, tmp_path_factory):
    groups = [group.ranked for group in simulate(6, seed=4)]
    return save_leaning(tiny_checkpoint, tmp_path_factory.mktemp("s") / "leaning", groups, size=3.0)


@pytest.fixture
def no_rounds(monkeypatch):
    """Rounds and measuring are told of, and cost nothing."""
    told = []

    def next_round(workshop, recipe, state, number):
        told.append((workshop, recipe, state, number))
        made = Path(f"annotations-{number}"), Path(f"reward-{number}"), Path(f"kept-{number}")
        return State(Path(f"policy-{number}"), (*state.annotations, made[0]),
                     (*state.reward_models, made[1]), (*state.kept, made[2]))  # fmt: skip

    def measure(workshop, recipe, policy, scorer, number, asked):
        assert scorer == Path(f"reward-{number}")
        assert policy == Path(f"policy-{number}")
        return {"reward": 0.5 * number, "asked": asked}

    monkeypatch.setattr(command, "next_round", next_round)
    monkeypatch.setattr(command, "measure_policy", measure)
    return told


def made(folder):
    return sorted(path.name for path in folder.glob("round-*"))


def kind(name):
    return name.rpartition("-")[0].removeprefix("round-1-")


def test_every_step_of_the_round_is_there(whole):
    assert [kind(name) for name in made(whole)] == list(STEPS)


def test_the_account_names_what_was_made_and_how_far_it_came(whole, tiny_checkpoint):
    account = json.loads((whole / "rounds.json").read_text())
    assert {name: account["settings"][name] for name in CONFIG} == CONFIG
    assert account["settings"]["model"] == str(tiny_checkpoint)
    assert account["settings"]["judge"] == "simulator"
    (only,) = account["rounds"]
    found = {kind(name): name for name in made(whole)}
    assert {key: only[key] for key in ("round", "annotations", "reward model", "samples")} == {
        "round": 1, "annotations": found["annotations"], "reward model": found["reward-model"],
        "samples": found["samples"],
    }  # fmt: skip
    assert only["policy"] == found["dpo"]
    assert set(only["means"]) == {"reward", "divergence", "words", "ended", "gold"}
    assert all(np.isfinite(value) for value in only["means"].values())
    measured = json.loads((whole / found["measured"] / "means.json").read_text())
    assert only["means"] == measured


def test_the_same_command_again_makes_nothing_and_says_where_all_is(
    whole, tiny_checkpoint, monkeypatch, capsys
):
    for name in ("_sampled", "train_reward_model", "finetune", "optimize", "score_responses"):
        monkeypatch.setattr(rounds, name, lambda *_, **__: pytest.fail("made anew"))
    account = (whole / "rounds.json").read_bytes()
    assert run(*options(tiny_checkpoint, whole)) == 0
    found = {kind(name): name for name in made(whole)}
    assert capsys.readouterr().out.splitlines() == [
        f"the policy: {whole / found['dpo']}",
        f"its reward model: {whole / found['reward-model']}",
        f"all rounds: {whole / 'rounds.json'}",
    ]
    assert (whole / "rounds.json").read_bytes() == account


def killed_in(step, checkpoint, folder):
    """Run the command in a process that is killed when half of a step is written."""
    save_policy = rounds.save_policy

    def run_until_killed():
        def saving(model, tokenizer_of, scratch):
            save_policy(model, tokenizer_of, scratch)
            if step in scratch.name:
                weights = scratch / "model.safetensors"
                weights.write_bytes(weights.read_bytes()[:1000])
                die()

        rounds.save_policy = saving
        return run(*options(checkpoint, folder))

    return forked(run_until_killed)


def test_a_killed_run_goes_on_to_the_last_bit(whole, tiny_checkpoint, tmp_path):
    folder = tmp_path / "killed"
    assert killed_in("sft", tiny_checkpoint, folder) == -9
    before = made(folder)
    assert [kind(name) for name in before] == ["annotations", "reward-model", "samples"]
    assert all((folder / name / "step.json").is_file() for name in before)
    assert not (folder / "rounds.json").exists()
    (half,) = folder.glob(".round-1-sft-*")
    assert (half / "model.safetensors").stat().st_size == 1000
    times = {name: (folder / name).stat().st_mtime_ns for name in before}

    assert run(*options(tiny_checkpoint, folder)) == 0
    assert made(folder) == made(whole)
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == times
    for name in made(whole):
        if (whole / name / "model.safetensors").exists():
            assert_equal_weights(folder / name, whole / name)
    one, other = (json.loads((f / "rounds.json").read_text())["rounds"] for f in (folder, whole))
    assert one == other


def test_settings_reach_the_rounds(no_rounds, tiny_checkpoint, tmp_path, capsys):
    changes = {"rounds": 3, "share": 0.5, "all_preferences": True, "seed": 7}
    assert run(*options(tiny_checkpoint, tmp_path / "out", **changes)) == 0
    assert [number for *_, number in no_rounds] == [1, 2, 3]
    workshop, recipe, state, _ = no_rounds[0]
    names = [name for name in RoundRecipe.__dataclass_fields__ if name in CONFIG | changes]
    assert {name: getattr(recipe, name) for name in names} == {
        name: (CONFIG | changes)[name] for name in names
    }
    assert (workshop.folder, workshop.checkpoint) == (tmp_path / "out", tiny_checkpoint)
    assert state == State(tiny_checkpoint)
    assert no_rounds[2][2].policy == Path("policy-2")
    account = json.loads((tmp_path / "out" / "rounds.json").read_text())["rounds"]
    assert [row["policy"] for row in account] == ["policy-1", "policy-2", "policy-3"]
    assert [row["means"]["reward"] for row in account] == [0.5, 1.0, 1.5]
    assert {row["means"]["asked"] for row in account} == {3}
    assert "the policy: policy-3" in capsys.readouterr().out


def test_another_seed_or_checkpoint_has_another_name(no_rounds, tiny_checkpoint, judge, tmp_path):
    for number, (model, changes) in enumerate(
        [
            (tiny_checkpoint, {}),
            (tiny_checkpoint, {"seed": 1}),
            (judge, {}),
            (tiny_checkpoint, {"judge": str(judge)}),
        ]
    ):
        assert run(*options(model, tmp_path / str(number), **changes)) == 0
    named = [(workshop.base, workshop.judged) for workshop, *_ in no_rounds]
    assert len(set(named)) == 4
    assert named[0][0] == named[1][0] == named[3][0] != named[2][0]


@pytest.fixture
def mine(tmp_path):
    """A file of preference data with twelve prompts."""
    groups = [group.ranked for group in simulate(12, seed=8, multi_turn=0)]
    path = tmp_path / "mine.jsonl"
    rows = [
        {"prompt": g.prompt[0].content, "chosen": g.chosen, "rejected": g.rejected} for g in groups
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path, groups


def test_a_reward_model_judges_answers_to_given_prompts(
    no_rounds, tiny_checkpoint, judge, mine, tmp_path
):
    path, groups = mine
    changes = {"prompt_data": [str(path)], "judge": str(judge), "evaluation_prompts": 1}
    assert run(*options(tiny_checkpoint, tmp_path / "out", **changes)) == 0
    ((workshop, *_),) = no_rounds
    drawn = [*workshop.draw("evaluation", 1), *workshop.draw("samples 1", 11)]
    assert set(drawn) == {group.prompt for group in groups}
    # Nobody knows how good answers to such prompts are.
    assert workshop.truth is None
    judged = workshop.judge.compare(
        [group.prompt for group in groups], [group.responses for group in groups], name="", seed=0
    )
    model, tokenizer = reward_model.load(judge)
    for group in judged:
        (scores,) = score_responses(model, tokenizer, [group.prompt], [group.responses])
        assert scores[0] > scores[1]


def test_other_prompts_and_first_data_have_another_name(
    no_rounds, tiny_checkpoint, judge, mine, tmp_path
):
    path, groups = mine
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("".join(path.read_text().splitlines(keepends=True)[:11]))
    common = {"judge": str(judge), "first_data": [str(path)]}
    for number, source in enumerate((path, fewer)):
        changes = common | {"prompt_data": [str(source)]}
        assert run(*options(tiny_checkpoint, tmp_path / f"out{number}", **changes)) == 0
    one, other = (workshop.judged for workshop, *_ in no_rounds)
    assert one != other
    _, _, state, _ = no_rounds[0]
    (first,) = state.annotations
    assert first.parent == tmp_path / "out0"
    found = read_groups(first / "pairs.jsonl").groups
    assert [(g.prompt, g.responses) for g in found] == [(g.prompt, g.responses) for g in groups]


def test_people_annotate_between_two_calls(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "out"
    code = run(*options(tiny_checkpoint, folder, judge="people"))
    assert "pairs are to be annotated" in refusal(capsys, code)
    assert made(folder) == []
    asked = (folder / "to-annotate" / "round-1.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in asked]
    (folder / "annotated").mkdir()
    with (folder / "annotated" / "round-1.jsonl").open("w") as file:
        for row in rows[1:]:
            first, second = row.pop("responses")
            file.write(json.dumps(row | {"chosen": second, "rejected": first}) + "\n")
    # What comes after is as with any judge.
    monkeypatch.setattr(rounds, "fit_reward_model", lambda *_: pytest.fail("enough"))
    with pytest.raises(pytest.fail.Exception):
        run(*options(tiny_checkpoint, folder, judge="people"))
    (path,) = folder.glob("round-1-annotations-*")
    groups = read_groups(path / "pairs.jsonl").groups
    assert len(groups) == len(rows) - 1
    # The prompts are the simulator's, so what the answers are worth is known.
    assert len({group.prompt for group in groups}) == len(groups)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt_data": ["mine.jsonl"]}, "the simulator's annotators know the truth of its own"),
        ({"prompt_data": ["simulator", "mine.jsonl"]}, "prompt_data to simulator, or judge to"),
        ({"model": None}, "give model"),
        ({"output_dir": None}, "give output_dir"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"evaluation_prompts": 0}, "evaluation_prompts must be at least 1"),
        ({"pairs": 0}, "pairs must be at least 1"),
        ({"edited": 1.5}, "edited must lie from 0 to 1"),
        ({"edited": 0.5, "judge": "people"}, "edited is for the simulator's annotators"),
        ({"stages": ["dpo"]}, "set restart to false"),
        ({"stages": ["ppo"]}, "stages must be some of sft and dpo"),
        ({"model": "./nothing"}, "./nothing"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(
    no_rounds, tiny_checkpoint, tmp_path, capsys, changes, words
):
    code = run(*options(tiny_checkpoint, tmp_path / "out", **changes))
    assert words in refusal(capsys, code)
    assert not no_rounds


def test_a_judge_without_a_score_head_is_refused(no_rounds, tiny_checkpoint, tmp_path, capsys):
    code = run(*options(tiny_checkpoint, tmp_path / "out", judge=str(tiny_checkpoint)))
    assert "has no score head, so it is no reward model that could judge" in refusal(capsys, code)
    assert not no_rounds


def test_too_few_prompts_are_refused(tiny_checkpoint, judge, mine, tmp_path, capsys):
    path, _ = mine
    changes = {"prompt_data": [str(path)], "judge": str(judge), "pairs": 12}
    code = run(*options(tiny_checkpoint, tmp_path / "out", **changes))
    assert "12 prompts are needed for annotations 1, and there are 11" in refusal(capsys, code)


def test_help_is_there(capsys):
    assert refused("rounds", "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: posttrain rounds")
    assert "--evaluation_prompts" in shown
