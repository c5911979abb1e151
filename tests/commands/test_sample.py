"""``posttrain sample``: what is written, scored and kept, and who can read it."""

import gzip
import json

import pytest
from command_line import refused, run
from reward_folders import save_leaning
from tiny_runs import refusal
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.commands import sample as command
from posttrain.commands.sample_settings import SampleSettings
from posttrain.data.reading import read_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.models import embedded
from posttrain.policy.sampling import SamplingSettings, sample

GROUPS = [group.ranked for group in simulate(12, seed=4, multi_turn=0.5)]
BRIEF = ("--samples", 4, "--max_new_tokens", 12, "--sampling_seed", 3)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(cache))


@pytest.fixture(scope="module")
def judges(tiny_checkpoint, tmp_path_factory):
    """Two reward models that differ."""
    folder = tmp_path_factory.mktemp("judges")
    return [
        save_leaning(tiny_checkpoint, folder / str(start), GROUPS[start : start + 6], size=3.0)
        for start in (0, 6)
    ]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """A file with prompts alone, as text and as messages, one of them twice."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = [
        {"prompt": [{"role": turn.role, "content": turn.content} for turn in group.prompt]}
        for group in GROUPS
    ]
    plain = [{"prompt": row["prompt"][0]["content"]} for row in rows if len(row["prompt"]) == 1]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*plain, *rows]))
    return path


@pytest.fixture(scope="module")
def distinct():
    plain = [group.prompt for group in GROUPS if len(group.prompt) == 1]
    return list(dict.fromkeys([*plain, *(group.prompt for group in GROUPS)]))


def sampled(model, data, output, *more):
    assert run("sample", "--model", model, "--data", data, "--output", output, *BRIEF, *more) == 0
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_lines_are_what_the_policy_room_samples(
    tiny_checkpoint, prompts, distinct, tmp_path, monkeypatch, capsys
):
    # Parts of two prompts each draw as all together do.
    monkeypatch.setattr(SampleSettings, "chunk", 2)
    lines = sampled(tiny_checkpoint, prompts, tmp_path / "out.jsonl")
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype="auto").eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    settings = SamplingSettings(samples=4, max_new_tokens=12, sampling_seed=3)
    expected = list(sample(model, tokenizer, distinct, settings))
    texts = [[one.text for one in row if one.text] for row in expected]
    assert [line["responses"] for line in lines] == [row for row in texts if row]
    assert len(lines) == len(distinct)
    for line, prompt, row in zip(lines, distinct, expected, strict=True):
        kept = [one for one in row if one.text]
        assert line["finished"] == [one.finished for one in kept]
        assert line["log_probabilities"] == pytest.approx(
            [one.log_probability for one in kept], abs=1e-9
        )
        assert line["prompt"] == [{"role": t.role, "content": t.content} for t in prompt]
    cut = sum(not one.finished for row in expected for one in row)
    said = capsys.readouterr().out
    assert f"wrote {len(lines)} lines to" in said
    assert f"{len(distinct)} prompts, {4 * len(distinct)} samples (" in said
    assert f"{cut} of them cut at 12 tokens" in said
    assert "repeated prompts, answered once" in said


def test_scores_are_those_of_posttrain_score_and_the_file_is_preference_data(
    tiny_checkpoint, judges, prompts, tmp_path, capsys
):
    output = tmp_path / "rated.jsonl"
    lines = sampled(tiny_checkpoint, prompts, output, "--reward_model", judges[0])
    scores = tmp_path / "scores.jsonl"
    assert run("score", "--model", judges[0], "--data", output, "--output", scores) == 0
    found = [json.loads(line) for line in scores.read_text().splitlines()]
    assert [(line["id"], line["response"]) for line in found] == [
        (line["id"], f"responses[{k}]") for line in lines for k in range(len(line["responses"]))
    ]
    assert [line["score"] for line in found] == pytest.approx(
        [score for line in lines for score in line["scores"]], abs=1e-6
    )
    result = read_groups(output)
    rated = {
        line["id"]: dict(zip(line["responses"], line["scores"], strict=True)) for line in lines
    }
    assert len(result.groups) > 10
    for group in result.groups:
        own = rated[group.id.rpartition("#")[0]]
        assert own[group.chosen] > own[group.rejected]
    assert not result.notes.columns
    assert not result.notes.fields
    capsys.readouterr()
    assert run("data", "check", output) == 0
    assert "refused" not in capsys.readouterr().err


def test_of_several_reward_models_scores_are_combined(tiny_checkpoint, judges, prompts, tmp_path):
    alone = [
        sampled(tiny_checkpoint, prompts, tmp_path / f"{place}.jsonl", "--reward_model", judge)
        for place, judge in enumerate(judges)
    ]
    both = ("--reward_model", *judges)
    mean = sampled(tiny_checkpoint, prompts, tmp_path / "mean.jsonl", *both)
    least = sampled(
        tiny_checkpoint, prompts, tmp_path / "least.jsonl", *both, "--combine", "minimum"
    )
    for first, second, middle, low in zip(*alone, mean, least, strict=True):
        for one, other, average, smaller in zip(
            first["scores"], second["scores"], middle["scores"], low["scores"], strict=True
        ):
            assert average == pytest.approx((one + other) / 2, abs=1e-9)
            assert smaller == pytest.approx(min(one, other), abs=1e-9)


def test_the_best_finished_response_of_each_prompt_is_kept(
    tiny_checkpoint, judges, prompts, tmp_path
):
    scored = ("--reward_model", judges[0])
    lines = sampled(tiny_checkpoint, prompts, tmp_path / "all.jsonl", *scored)
    kept = sampled(tiny_checkpoint, prompts, tmp_path / "best.jsonl", *scored, "--keep", "best")
    expected = {}
    for line in lines:
        usable = [
            (score, text)
            for score, text, finished in zip(
                line["scores"], line["responses"], line["finished"], strict=True
            )
            if finished
        ]
        if usable:
            expected[line["id"]] = max(usable, key=lambda pair: pair[0])
    assert [line["id"] for line in kept] == list(expected)
    for line in kept:
        score, text = expected[line["id"]]
        assert line["response"] == text
        assert line["score"] == pytest.approx(score, abs=1e-9)

    share = (*scored, "--keep", "best", "--share", 0.5)
    half = sampled(tiny_checkpoint, prompts, tmp_path / "half.jsonl", *share)
    highest = sorted(kept, key=lambda line: -line["score"])[: round(len(kept) / 2)]
    assert [line["id"] for line in half] == [line["id"] for line in kept if line in highest]


def test_a_prompts_domain_is_kept_because_scores_flag_by_it(tiny_checkpoint, judges, tmp_path):
    path = tmp_path / "some.jsonl"
    records = [
        {"id": "a", "prompt": "sort : two one", "domain": "safety"},
        {"id": "b", "prompt": "count : a b"},
        {"id": "c", "prompt": "say : a", "chosen": "a", "rejected": "b", "domain": "mine"},
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    for options in ((), ("--reward_model", judges[0], "--keep", "best")):
        lines = sampled(tiny_checkpoint, path, tmp_path / "out.jsonl", *options)
        found = {line["id"]: line.get("domain") for line in lines}
        assert found
        assert found.items() <= {"a": "safety", "b": None, "c": "mine"}.items()


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl.gz"])
def test_prompts_alone_are_read_from_every_kind_of_file(suffix, tmp_path):
    import pandas as pd

    path = tmp_path / f"prompts{suffix}"
    table = pd.DataFrame({"id": ["a", "b"], "prompt": ["sort : two one", "count : a b"]})
    if suffix == ".csv":
        table.to_csv(path, index=False)
    elif suffix == ".parquet":
        table.to_parquet(path)
    else:
        path.write_bytes(gzip.compress(table.to_json(orient="records", lines=True).encode()))
    settings = SampleSettings(
        model="tiny", data=[str(path)], output=str(tmp_path / "o.jsonl"), prompts=1
    )
    counts = command.Counter()
    tokenizer = embedded.train_tokenizer(["sort : two one count a b"])
    from types import SimpleNamespace

    from transformers import LlamaConfig

    model = SimpleNamespace(config=LlamaConfig())
    with command.Prompts.read(settings, model, tokenizer, counts) as prompts:
        ((prompt,),) = prompts.chunks(9)
    assert (prompt.id, prompt.messages[0].content) == ("a", "sort : two one")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("--keep", "best"), "give a reward_model"),
        (("--share", "0.5"), "no effect without keep best"),
        (("--combine", "mean"), "fewer than two reward models"),
        (("--keep", "worst"), "unknown keep 'worst'; known: all, best"),
        (("--samples", "0"), "samples must be at least 1"),
        (("--temperature", "-1"), "temperature must be at least 0"),
        (("--output", "out.csv"), "must end with .jsonl"),
        (("--dtype", "float8"), "unknown dtype 'float8'"),
        (("--max_new_tokens", "500"), "exceeds the 256 that"),
        (("--data", "nothing"), "unknown source 'nothing'"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_makes_no_sense_is_refused(tiny_checkpoint, tmp_path, capsys, changes, words):
    given = {"--model": tiny_checkpoint, "--data": "simulator:4", "--output": tmp_path / "o.jsonl"}
    given |= dict([changes])
    code = run("sample", *(word for pair in given.items() for word in pair))
    assert words in refusal(capsys, code)
    assert not (tmp_path / "o.jsonl").exists()


def test_a_reward_model_writes_no_text(judges, tmp_path, capsys):
    code = run(
        "sample", "--model", judges[0], "--data", "simulator:4", "--output", tmp_path / "o.jsonl"
    )
    assert "is a reward model or another classifier (LlamaForSequenceClassification)" in refusal(
        capsys, code
    )


def test_bad_records_are_named_or_counted(tiny_checkpoint, tmp_path, capsys):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "sort : two one"}\n{"prompt": ""}\n{"question": "?"}\n')
    arguments = ("sample", "--model", tiny_checkpoint, "--data", path, *BRIEF)
    arguments += ("--output", tmp_path / "o.jsonl")
    assert f"{path}, line 2, field 'prompt': it is empty" in refusal(capsys, run(*arguments))
    assert run(*arguments, "--skip_bad") == 0
    assert "2 bad records" in capsys.readouterr().out


def test_an_input_is_not_overwritten(tiny_checkpoint, prompts, capsys):
    code = run("sample", "--model", tiny_checkpoint, "--data", prompts, "--output", prompts)
    assert "would be overwritten" in refusal(capsys, code)


def test_help_is_there(capsys):
    assert refused("sample", "--help") == 0
    assert capsys.readouterr().out.startswith("usage: posttrain sample")
