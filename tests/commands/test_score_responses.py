"""``posttrain score`` of responses that nobody compared, and the best of them."""

import json
import os
from collections import Counter

import pandas as pd
import pytest
from command_line import run
from policy_runs import train as train_policy
from reward_folders import save_leaning

from posttrain.commands.score import _chosen, _scores
from posttrain.commands.score_settings import ScoreSettings
from posttrain.data.demonstrations import read_demonstrations
from posttrain.data.preferences import to_record
from posttrain.data.reading import write_groups
from posttrain.data.scorable import iterate_candidates
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.evaluation import scoring

GROUPS = [group.ranked for group in simulate(12, seed=4, multi_turn=0.5, edited_share=0.5)]
SAFE = [group.ranked for group in simulate(12, seed=9, domain="safety")]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(cache))


@pytest.fixture(scope="module")
def models(tiny_checkpoint, tmp_path_factory):
    """Calibrated reward models of helpfulness and of safety; nothing may write into them."""
    folder = tmp_path_factory.mktemp("models")
    for name, groups, size in (("helpful", GROUPS, 1.0), ("safe", SAFE, 30.0)):
        save_leaning(tiny_checkpoint, folder / name, groups, size=size)
        write_groups(folder / f"{name}.jsonl", groups)
        assert run("calibrate", "--model", folder / name, "--data", folder / f"{name}.jsonl") == 0
    return folder / "helpful", folder / "safe"


@pytest.fixture(scope="module")
def model(models):
    return models[0]


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def scored(model, data, *options):
    output = data.parent / "scores.jsonl"
    assert run("score", "--model", model, "--data", data, "--output", output, *options) == 0
    return lines(output)


def messages(group):
    return [{"role": turn.role, "content": turn.content} for turn in group.prompt]


def said(text):
    return [{"role": "assistant", "content": text}]


def as_lists(groups):
    return [
        {"id": g.id, "prompt": messages(g), "responses": list(g.responses), "domain": g.domain}
        for g in groups
    ]


def singles(groups, record):
    return [record(group, text) for group in groups for text in group.responses]


SINGLE = {
    "text": lambda g, text: {"prompt": to_record(g)["prompt"], "response": text},
    "messages beside a prompt": lambda g, text: {"prompt": messages(g), "response": said(text)},
    "conversations": lambda g, text: {"messages": messages(g) + said(text)},
}
LIMIT = ("--max_tokens", 24)


@pytest.mark.parametrize("options", [(), LIMIT, ("--layout", "exact"), ("--calibrated",)])
def test_scores_are_those_of_the_same_responses_in_pairs(model, tmp_path, options):
    pairs = tmp_path / "pairs.jsonl"
    write_groups(pairs, GROUPS)
    expected = scored(model, pairs, *options)
    assert any(line["trimmed"] for line in expected) == (options == LIMIT)
    told = [(line["score"], line["trimmed"]) for line in expected]
    found = scored(model, write(tmp_path / "lists.jsonl", as_lists(GROUPS)), *options)
    assert [(line["score"], line["trimmed"]) for line in found] == told
    assert [(line["id"], line["response"]) for line in found] == [
        (group.id, f"responses[{place}]")
        for group in GROUPS
        for place in range(len(group.responses))
    ]
    for number, (name, record) in enumerate(SINGLE.items()):
        data = write(tmp_path / f"{number}.jsonl", singles(GROUPS, record))
        found = scored(model, data, *options)
        assert [(line["score"], line["trimmed"]) for line in found] == told, name
        assert [line["id"] for line in found] == [f"{number}-{k + 1}" for k in range(len(told))]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl.gz"])
def test_tables_score_as_lines_do(model, tmp_path, suffix):
    plain = [group for group in GROUPS if len(group.prompt) == 1]
    rows = singles(plain, SINGLE["text"])
    expected = scored(model, write(tmp_path / "mine.jsonl", rows))
    data, table = tmp_path / f"mine{suffix}", pd.DataFrame(rows)
    if suffix == ".csv":
        table.to_csv(data, index=False)
    elif suffix == ".parquet":
        table.to_parquet(data)
    else:
        table.to_json(data, orient="records", lines=True)
    found = scored(model, data)
    assert [line["score"] for line in found] == [line["score"] for line in expected]
    own = table.rename(columns={"prompt": "question", "response": "answer"})
    own.to_csv(tmp_path / "own.csv", index=False)
    found = scored(model, tmp_path / "own.csv", "--columns", "prompt=question,response=answer")
    assert [line["score"] for line in found] == [line["score"] for line in expected]


def test_a_response_that_a_list_repeats_has_a_line_each_time(model, tmp_path):
    record = {"prompt": "Why?", "responses": ["sure", "sorry", "sure"], "scores": [1, 1, 1]}
    first, second, third = scored(model, write(tmp_path / "mine.jsonl", [record]))
    assert first["score"] == third["score"] != second["score"]
    assert [one["response"] for one in (first, second, third)] == [
        f"responses[{place}]" for place in range(3)
    ]


def test_kinds_of_records_may_stand_in_one_file(model, tmp_path, capsys):
    kinds = [
        {"prompt": "Why?", "responses": ["sure", "sorry"]},
        {"prompt": "Why?"},
        {"prompt": "Why?", "chosen": "sorry", "rejected": "sure"},
        {"prompt": "Why?", "response": "sure"},
    ]
    data = write(tmp_path / "mine.jsonl", kinds)
    assert run("score", "--model", model, "--data", data, "--output", tmp_path / "x") == 1
    assert f"{data}, line 2, field 'response': there is nothing to score" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    found = scored(model, data, "--skip_bad")
    assert [line["response"] for line in found] == [
        "responses[0]", "responses[1]", "chosen", "rejected", "response",
    ]  # fmt: skip
    sure, sorry, *rest = (line["score"] for line in found)
    assert rest == [sorry, sure, sure]
    assert "3 records, 5 responses, 1 bad records" in capsys.readouterr().out


def test_a_list_with_a_response_that_is_too_long_is_an_error_or_counted(model, tmp_path, capsys):
    records = [
        {"prompt": "Why?", "responses": ["sure", "sure " * 50]},
        {"prompt": "Why?", "response": "sure"},
    ]
    data = write(tmp_path / "mine.jsonl", records)
    output = tmp_path / "scores.jsonl"
    given = ("score", "--model", model, "--data", data, "--output", output, *LIMIT)
    assert run(*given) == 1
    assert "--skip_too_long" in capsys.readouterr().err
    assert [line["id"] for line in scored(model, data, *LIMIT, "--skip_too_long")] == ["mine-2"]
    assert "1 records, 1 responses" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["separate", "exact", "causal"])
def test_one_response_alone_is_scored_in_every_layout(model, tmp_path, layout):
    data = write(tmp_path / "mine.jsonl", [{"prompt": "Why?", "response": "sure"}])
    (line,) = scored(model, data, "--layout", layout)
    assert line["score"] == pytest.approx(scored(model, data)[0]["score"], abs=1e-12)


def test_prompts_are_chosen_for_while_data_are_read(model, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK", 4)
    drawn = []

    def source():
        for one in iterate_candidates(str(data)):
            drawn.append(one)
            yield one

    data = write(tmp_path / "mine.jsonl", as_lists(GROUPS))
    settings = ScoreSettings(model=str(model), data=[str(data)], best=True)
    counts = Counter()
    found = _chosen(_scores(settings, source(), counts), settings, counts)
    assert not drawn
    for number in range(1, len(GROUPS)):
        assert next(found)["id"] == GROUPS[number - 1].id
        # To know that a prompt is over takes the next one.
        assert len(drawn) == 4 * (number // 4 + 1)


def test_the_best_of_each_prompt_with_its_margin(model, tmp_path, capsys):
    data = write(tmp_path / "mine.jsonl", as_lists(GROUPS))
    every, best = scored(model, data), scored(model, data, "--best")
    assert f"wrote {len(GROUPS)} lines" in capsys.readouterr().out
    assert len(best) == len(GROUPS)
    for line, group in zip(best, GROUPS, strict=True):
        scores = [one["score"] for one in every if one["id"] == group.id]
        ordered = sorted(scores, reverse=True)
        assert line == {
            "id": group.id,
            "prompt": messages(group),
            "response": group.responses[scores.index(ordered[0])],
            "score": ordered[0],
            "margin": ordered[0] - ordered[1],
        }
        assert list(line) == ["id", "prompt", "response", "score", "margin"]
    # The same of pairs, and of responses one a line.
    pairs = tmp_path / "pairs.jsonl"
    write_groups(pairs, GROUPS)
    assert scored(model, pairs, "--best") == best
    apart = write(tmp_path / "apart.jsonl", singles(GROUPS, SINGLE["conversations"]))
    found = scored(model, apart, "--best")
    names = {line.pop("id") for line in found}
    assert found == [{name: line[name] for name in line if name != "id"} for line in best]
    assert len(names) == len(GROUPS)


def test_the_top_of_each_prompt(model, tmp_path):
    data = write(tmp_path / "mine.jsonl", as_lists(GROUPS))
    every = scored(model, data)
    found = scored(model, data, "--top", 2)
    assert [(line["id"], line["rank"]) for line in found] == [
        (group.id, rank) for group in GROUPS for rank in (1, 2)
    ]
    for group in GROUPS:
        scores = sorted((one["score"] for one in every if one["id"] == group.id), reverse=True)
        assert [one["score"] for one in found if one["id"] == group.id] == scores[:2]


def test_of_ties_the_first_and_of_one_no_margin(model, tmp_path):
    # Words that the tokenizer does not know are one and the same token.
    records = [
        {"prompt": "Why?", "responses": ["qq", "ww"]},
        {"prompt": "How?", "responses": ["sure", "sure"]},
    ]
    first, second = scored(model, write(tmp_path / "mine.jsonl", records), "--best")
    assert (first["response"], first["margin"]) == ("qq", 0)
    assert (second["response"], second["margin"]) == ("sure", None)


@pytest.mark.parametrize("options", [("--best",), ("--top", 2)])
def test_what_was_chosen_is_read_as_demonstrations_and_scored_again(model, tmp_path, options):
    spelled = json.dumps(said("x"))
    odd = [{"id": "odd", "prompt": "Why?", "responses": [said(spelled)]}]
    data = write(tmp_path / "mine.jsonl", as_lists(GROUPS) + odd)
    chosen = scored(model, data, *options)
    path = write(tmp_path / "chosen.jsonl", [line for line in chosen if line.pop("id")])
    shown = read_demonstrations([str(path)])
    by_prompt = {group.prompt: group.responses for group in GROUPS}
    assert all(one.response in by_prompt[one.prompt] for one in shown.rows[:-1])
    # As text it would be read as the messages that it spells out.
    assert shown.rows[-1].response == spelled
    assert len(shown.rows) == len(chosen)
    assert not shown.notes.columns
    again = [line["score"] for line in scored(model, path)]
    assert again == pytest.approx([line["score"] for line in chosen], abs=1e-12)


def test_a_policy_is_trained_on_the_best(model, tiny_checkpoint, tmp_path):
    data = write(tmp_path / "mine.jsonl", as_lists(GROUPS))
    best = tmp_path / "best.jsonl"
    assert run("score", "--model", model, "--data", data, "--output", best, "--best") == 0
    assert train_policy("sft", tiny_checkpoint, tmp_path / "sft", data=best, save_steps=100) == 0
    account = json.loads((tmp_path / "sft" / "run.json").read_text())
    assert account["data"]["training"]["demonstrations"] == len(GROUPS)
    assert account["data"]["notes"] == []


@pytest.mark.parametrize("options", [(), ("--rule", "gate", "--threshold", 0.5)])
def test_two_models_score_and_choose_together(models, tmp_path, options):
    groups = [*GROUPS[:4], *SAFE[:4]]
    groups = [group for group in groups if len(group.responses) == 2]
    pairs, data = tmp_path / "pairs.jsonl", tmp_path / "mine.jsonl"
    records = [record | {"id": str(k)} for k, record in enumerate(as_lists(groups))]
    write(data, records)
    write(pairs, [to_record(group) | {"id": str(k)} for k, group in enumerate(groups)])
    given = ("--safety_model", models[1], *options)
    expected, found = scored(models[0], pairs, *given), scored(models[0], data, *given)
    values = ("id", "helpfulness", "safety", "score", "trimmed")
    assert [[line[name] for name in values] for line in found] == [
        [line[name] for name in values] for line in expected
    ]
    for line in scored(models[0], data, *given, "--best"):
        assert list(line) == [
            "id", "prompt", "response", "helpfulness", "safety", "score", "margin",
        ]  # fmt: skip
        own = [one for one in found if one["id"] == line["id"]]
        top = max(own, key=lambda one: one["score"])
        assert [line[name] for name in values[:4]] == [top[name] for name in values[:4]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--best", "--top", 2), "best and top exclude each other"),
        (("--top", 0), "top must be at least 1, not 0"),
        (("--columns", "question=prompt"), "put one of these on the left"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message, tmp_path, capsys):
    given = ("--model", "tiny", "--data", "x.jsonl", "--output", tmp_path / "x", *options)
    assert run("score", *given) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--best", "--top=2"])
def test_a_random_head_chooses_nothing(tiny_checkpoint, tmp_path, capsys, option):
    data = write(tmp_path / "mine.jsonl", as_lists(GROUPS[:2]))
    output = tmp_path / "best.jsonl"
    command = ("score", "--model", tiny_checkpoint, "--data", data, "--output", output)
    assert run(*command, option) == 1
    assert "has no score head" in capsys.readouterr().err
    assert not output.exists()
    assert run(*command) == 0


@pytest.mark.parametrize("name", ["best.csv", "best.parquet", "pipe"])
def test_what_holds_no_json_lines_is_no_output(model, tmp_path, capsys, name):
    os.mkfifo(tmp_path / "pipe")
    data = write(tmp_path / "mine.jsonl", as_lists(GROUPS[:2]))
    assert run("score", "--model", model, "--data", data, "--output", tmp_path / name) == 1
    assert f"output {tmp_path / name}" in capsys.readouterr().err
    assert (tmp_path / "pipe").is_fifo()


def test_a_combined_score_is_finite_or_refused(models, tmp_path, capsys):
    data = write(tmp_path / "mine.jsonl", as_lists(GROUPS[:2]))
    output = tmp_path / "scores.jsonl"
    command = ("score", "--model", models[0], "--safety_model", models[1], "--data", data)
    assert run(*command, "--output", output, "--safety_weight", "1.7e308") == 1
    assert "is not finite" in capsys.readouterr().err
    assert not output.exists()
