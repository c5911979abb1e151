"""``posttrain score`` and ``evaluate``: every response in order, files whole or not at all."""

import json
import math
import tracemalloc
from collections import Counter
from dataclasses import replace

import matrix
import numpy as np
import pytest
import torch
from reward_folders import save_leaning

from posttrain import cli
from posttrain.commands import score as score_command
from posttrain.data.reading import read_groups, write_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.evaluation import calibration, scoring
from posttrain.evaluation.combining import Rule
from posttrain.models import reward_model
from posttrain.models.reward_model import score, score_head
from posttrain.rows.layout import LAYOUTS
from posttrain.rows.tokenization import tokenize_group


@pytest.fixture
def model(tiny_checkpoint, tmp_path):
    """A reward model with a head of its own, as a folder."""
    found, tokenizer = reward_model.load(tiny_checkpoint, seed=5)
    found.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.jsonl"
    write_groups(path, [group.ranked for group in simulate(30, seed=4, edited_share=0.5)])
    return path


def run(command, model, data, output, *more):
    arguments = [command, "--model", model, "--data", data, "--output", output, *more]
    return cli.main(list(map(str, arguments)))


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("layout", ["separate", "exact"])
def test_every_response_has_a_line_in_the_order_of_the_file(model, data, tmp_path, capsys, layout):
    output = tmp_path / "new" / "scores.jsonl"
    assert run("score", model, data, output, "--layout", layout) == 0
    loaded, tokenizer = reward_model.load(model)
    expected = []
    for group in read_groups(data).groups:
        tokens = tokenize_group(tokenizer, group)
        scores = score(loaded, [tokens], pad_token_id=0, layout=LAYOUTS["separate"]).tolist()
        names = ("edited", "chosen", "rejected")[-len(scores) :]
        expected += [(group.id, *one) for one in zip(names, scores, strict=True)]
    found = lines(output)
    assert [tuple(line.values())[:2] for line in found] == [one[:2] for one in expected]
    assert [line["score"] for line in found] == pytest.approx(
        [one[2] for one in expected], abs=1e-12
    )
    assert {line["response"] for line in found} == {"edited", "chosen", "rejected"}
    out = capsys.readouterr().out
    assert f"wrote {len(expected)} scores to {output}" in out
    assert "30 records" in out


def test_scores_of_shuffled_rows_repeat_with_their_seed(model, data, tmp_path):
    found = []
    for number, seed in enumerate((1, 1, 2)):
        output = tmp_path / f"{number}.jsonl"
        assert run("score", model, data, output, "--layout", "causal", "--seed", seed) == 0
        found.append(lines(output))
    assert found[0] == found[1] != found[2]


def test_a_bad_record_leaves_no_file_and_is_named(model, data, tmp_path, capsys):
    with data.open("a") as file:
        file.write('{"prompt": "p", "chosen": "c"}\n')
    output = tmp_path / "scores.jsonl"
    assert run("score", model, data, output) == 1
    assert f"{data}, line 31, field 'rejected'" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "model"]
    assert run("score", model, data, output, "--skip_bad") == 0
    assert "1 bad records" in capsys.readouterr().out


@pytest.fixture
def peak_after_loading(monkeypatch):
    """Bytes that Python held at most since the model was loaded, which takes more than scoring."""
    load = score_command.load_scorer

    def load_and_forget(settings):
        found = load(settings)
        tracemalloc.start()
        return found

    monkeypatch.setattr(score_command, "load_scorer", load_and_forget)

    def peak():
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    return peak


def test_memory_does_not_grow_with_the_file(model, tmp_path, monkeypatch, peak_after_loading):
    monkeypatch.setattr(scoring, "CHUNK", 100)
    some = [group.ranked for group in simulate(10, seed=4)]
    # Tokenising the same ten again and again would take most of the time.
    tokenizer = reward_model.load(model)[1]
    tokens = {group.prompt: tokenize_group(tokenizer, group) for group in some}
    monkeypatch.setattr(scoring, "tokenize_apart", lambda _, group, __: (tokens[group.prompt],))
    peaks = []
    for count in (500, 3000):
        path, output = tmp_path / f"{count}.jsonl", tmp_path / "scores.jsonl"
        # Ids weigh as much as long answers would, but cost no time to score.
        groups = (replace(some[k % 10], id=f"{k}" + "x" * 2000) for k in range(count))
        write_groups(path, groups)
        assert run("score", model, path, output) == 0
        peaks.append(peak_after_loading())
        with output.open() as file:
            assert sum(1 for _ in file) == 2 * count
    # All 3000 ids are 6 MB, and all scored groups more; a chunk's are 0.2 MB.
    assert peaks[1] < peaks[0] + 1_000_000


def test_a_random_head_is_warned_of(tiny_checkpoint, data, tmp_path, caplog):
    assert run("score", tiny_checkpoint, data, tmp_path / "scores.jsonl") == 0
    assert "has no score head: scores are those of a random one, drawn with seed 0" in caplog.text


def test_a_trained_head_is_not_warned_of(model, data, tmp_path, caplog):
    assert run("score", model, data, tmp_path / "scores.jsonl") == 0
    assert "random" not in caplog.text


def test_what_is_too_long_is_an_error_or_counted(model, data, tmp_path, capsys):
    limit = ["--max_tokens", 14]
    assert run("score", model, data, tmp_path / "scores.jsonl", *limit) == 1
    assert "leave such groups out (--skip_too_long)" in capsys.readouterr().err
    assert run("score", model, data, tmp_path / "scores.jsonl", *limit, "--skip_too_long") == 0
    out = capsys.readouterr().out
    assert "groups that are too long" in out
    assert "trimmed prompts" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "x.jsonl"], "give a model"),
        (["--model", "tiny"], "give data to score"),
        (["--model", "tiny", "--data", "x.jsonl", "--layout", "spiral"], "unknown layout"),
        (["--model", "tiny", "--data", "x.jsonl", "--dtype", "int8"], "unknown dtype"),
        (["--config", "missing.yaml"], "missing.yaml"),
    ],
)
@pytest.mark.parametrize("command", ["calibrate", "score", "evaluate"])
def test_settings_that_make_no_sense_are_refused(command, arguments, message, capsys):
    assert cli.main([command, *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_broken_configuration_is_named(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("model: [tiny\n")
    assert cli.main(["score", "--config", str(tmp_path / "run.yaml")]) == 1
    assert "is not YAML" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "calibrate", "score", "evaluate"])
def test_help_explains_every_setting(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: posttrain {command}")
    assert "causal (one row, shuffled, responses see those before them)" in " ".join(out.split())


@pytest.mark.parametrize("command", ["train", "score", "evaluate"])
def test_an_unknown_setting_is_refused(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--model", "tiny", "--data", "x.jsonl", "--colour", "red"])
    assert stop.value.code == 2
    assert "unknown settings: --colour" in capsys.readouterr().err


def test_an_evaluation_is_json_on_standard_output_or_in_a_file(model, data, tmp_path, capsys):
    output = tmp_path / "report.json"
    assert run("evaluate", model, data, output, "--resamples", 100) == 0
    capsys.readouterr()
    assert run("evaluate", model, data, "-", "--resamples", 100) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(output.read_text())
    groups = read_groups(data).groups
    assert printed["pairs"] == len(groups)
    assert set(printed["by_pair"]) == {
        "chosen > rejected", "edited > chosen", "edited > rejected",
    }  # fmt: skip
    loaded, tokenizer = reward_model.load(model)
    tokens = [tokenize_group(tokenizer, group) for group in groups]
    scores = score(loaded, tokens, pad_token_id=0).split([len(g.responses) for g in groups])
    right = sum((one[-2] > one[-1]).item() for one in scores)
    assert printed["accuracy"]["estimate"] == pytest.approx(right / len(groups))
    assert printed["left_out"] == {}


def test_no_group_at_all_gives_an_empty_file(model, tmp_path, capsys):
    data = tmp_path / "long.jsonl"
    write_groups(data, [group.ranked for group in simulate(3, seed=4)])
    limit = ("--max_tokens", 2, "--skip_too_long")
    assert run("score", model, data, tmp_path / "scores.jsonl", *limit) == 0
    assert (tmp_path / "scores.jsonl").read_text() == ""
    out = capsys.readouterr().out
    assert "wrote 0 scores" in out
    assert "3 groups that are too long" in out


HELPFUL = [group.ranked for group in simulate(16, seed=4, edited_share=0.5)]
SAFE = [
    replace(group.ranked, id=f"safety-{number}")
    for number, group in enumerate(simulate(14, seed=9, domain="safety"))
]
#: Helpfulness and safety by turns, so that a group that is left out shifts what follows.
MIXED = [one for both in zip(HELPFUL, SAFE, strict=False) for one in both] + HELPFUL[14:]


def calibrate(model, groups, path):
    write_groups(path, groups)
    assert cli.main(["calibrate", "--model", str(model), "--data", str(path)]) == 0
    return model


@pytest.fixture(scope="module")
def helpful(tiny_checkpoint, tmp_path_factory):
    """A calibrated reward model of helpfulness; nothing may write into it."""
    folder = save_leaning(tiny_checkpoint, tmp_path_factory.mktemp("helpful"), HELPFUL)
    return calibrate(folder, HELPFUL, folder.parent / "helpful.jsonl")


@pytest.fixture(scope="module")
def safe(tiny_checkpoint, tmp_path_factory):
    """The same of safety, with scores of another size."""
    folder = save_leaning(tiny_checkpoint, tmp_path_factory.mktemp("safe"), SAFE, size=30)
    return calibrate(folder, SAFE, folder.parent / "safe.jsonl")


@pytest.fixture
def mixed(tmp_path):
    path = tmp_path / "mixed.jsonl"
    write_groups(path, MIXED)
    return path


def raw(model, groups=MIXED):
    """Scores of all responses, one after the other, before any calibration."""
    loaded, tokenizer = reward_model.load(model)
    tokens = [tokenize_group(tokenizer, group, keep_equal=True) for group in groups]
    return score(loaded, tokens, pad_token_id=0).numpy()


def calibrated(model, groups=MIXED):
    return calibration.read(model / calibration.FILE).apply(raw(model, groups))


def column(output, name):
    return np.array([line[name] for line in lines(output)])


def test_scores_of_one_model_can_be_calibrated(helpful, mixed, tmp_path):
    output = tmp_path / "scores.jsonl"
    assert run("score", helpful, mixed, output) == 0
    assert column(output, "score") == pytest.approx(raw(helpful), abs=1e-12)
    assert run("score", helpful, mixed, output, "--calibrated") == 0
    assert [list(line) for line in lines(output)[:1]] == [["id", "response", "score", "trimmed"]]
    assert column(output, "score") == pytest.approx(calibrated(helpful), abs=1e-9)
    # Another calibration of the same model, elsewhere.
    found = calibration.read(helpful / calibration.FILE)
    other = tmp_path / "other.json"
    replace(found, scale=2 * found.scale).save(other)
    assert run("score", helpful, mixed, output, "--calibrated", "--calibration", other) == 0
    assert column(output, "score") == pytest.approx(2 * calibrated(helpful), abs=1e-9)


def test_an_evaluation_of_calibrated_scores_is_that_of_log_odds(helpful, mixed, tmp_path):
    output = tmp_path / "report.json"
    assert run("evaluate", helpful, mixed, output, "--calibrated", "--resamples", 5) == 0
    found = json.loads(output.read_text())
    sizes = np.cumsum([len(group.responses) for group in MIXED])
    scores = calibrated(helpful)
    difference = scores[sizes - 2] - scores[sizes - 1]
    assert found["log_likelihood"]["estimate"] == pytest.approx(
        calibration.log_likelihood(difference), abs=1e-9
    )


RULES = [
    ((), Rule("sum")),
    (("--rule", "sum", "--safety_weight", 0.5), Rule("sum", weight=0.5)),
    (("--rule", "switch"), Rule("switch", threshold=0.15)),
    (("--rule", "switch", "--threshold", 0.5), Rule("switch", threshold=0.5)),
    (("--rule", "gate", "--threshold", 0.5), Rule("gate", threshold=0.5)),
]


@pytest.mark.parametrize(("options", "rule"), RULES)
@pytest.mark.parametrize("flags", [True, False])
def test_two_models_scores_are_combined(helpful, safe, mixed, tmp_path, options, rule, flags):
    output = tmp_path / "scores.jsonl"
    more = () if flags or rule.kind == "sum" else ("--no_flags",)
    assert run("score", helpful, mixed, output, "--safety_model", safe, *options, *more) == 0
    found = lines(output)
    assert {tuple(line) for line in found} == {
        ("id", "response", "helpfulness", "safety", "score", "trimmed")
    }
    assert [(line["id"], line["response"]) for line in found] == [
        (group.id, name)
        for group in MIXED
        for name in ("edited", "chosen", "rejected")[-len(group.responses) :]
    ]
    helpfulness, safety = calibrated(helpful), calibrated(safe)
    assert column(output, "helpfulness") == pytest.approx(helpfulness, abs=1e-9)
    assert column(output, "safety") == pytest.approx(safety, abs=1e-9)
    flagged = np.array([flags and line["id"].startswith("safety-") for line in found])
    expected = rule.combine(helpfulness, safety, flagged)
    assert column(output, "score") == pytest.approx(expected, abs=1e-9)
    if rule.threshold == 0.5:
        # Safe ones and unsafe ones, and flags that matter.
        assert len(set((safety[~flagged] < 0).tolist())) == 2
        if flags:
            assert (rule.combine(helpfulness, safety) != expected).any()


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_both_models_score_what_is_in_memory(monkeypatch, helpful, safe, mixed, tmp_path, chunk):
    output = tmp_path / "scores.jsonl"
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    assert run("score", helpful, mixed, output, "--safety_model", safe, "--layout", "exact") == 0
    expected = calibrated(helpful) + calibrated(safe)
    assert column(output, "score") == pytest.approx(expected, abs=1e-9)


def test_shuffled_rows_are_those_of_each_model_alone(monkeypatch, helpful, safe, mixed, tmp_path):
    monkeypatch.setattr(scoring, "CHUNK", 7)
    options = ("--layout", "causal", "--seed", 3)
    for name, one in (("helpful", helpful), ("safe", safe)):
        assert run("score", one, mixed, tmp_path / name, "--calibrated", *options) == 0
    both = tmp_path / "both"
    assert run("score", helpful, mixed, both, "--safety_model", safe, *options) == 0
    for name, part in (("helpful", "helpfulness"), ("safe", "safety")):
        alone = column(tmp_path / name, "score")
        assert column(both, part) == pytest.approx(alone, abs=1e-9)


def with_context(model, folder, context):
    """The same model for less context, with its calibration."""
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).symlink_to(path)
    config = json.loads((model / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": context}))
    return folder


@pytest.mark.parametrize(("first", "second"), [(14, 256), (256, 14), (15, 14)])
def test_a_group_that_either_model_cannot_take_is_left_out_of_both(
    monkeypatch, helpful, safe, mixed, tmp_path, capsys, first, second
):
    monkeypatch.setattr(scoring, "CHUNK", 5)
    models = (
        with_context(helpful, tmp_path / "h", first),
        with_context(safe, tmp_path / "s", second),
    )
    alone = []
    for number, one in enumerate(models):
        output = tmp_path / f"{number}.jsonl"
        assert run("score", one, mixed, output, "--calibrated", "--skip_too_long") == 0
        alone.append({(line["id"], line["response"]): line["score"] for line in lines(output)})
    capsys.readouterr()
    output = tmp_path / "both.jsonl"
    options = ("--safety_model", models[1])
    assert run("score", models[0], mixed, output, *options, "--skip_too_long") == 0
    kept = [key for key in alone[0] if key in alone[1]]
    assert 0 < len(kept) < len(raw(helpful))
    found = lines(output)
    assert [(line["id"], line["response"]) for line in found] == kept
    for line, key in zip(found, kept, strict=True):
        assert line["helpfulness"] == pytest.approx(alone[0][key], abs=1e-9)
        assert line["safety"] == pytest.approx(alone[1][key], abs=1e-9)
    groups = len({key[0] for key in kept})
    out = capsys.readouterr().out
    assert f"{len(MIXED) - groups} groups that are too long" in out
    assert f"{groups} records" in out
    # Without the setting it is an error, which says whose limit it is.
    output.unlink()
    assert run("score", models[0], mixed, output, *options) == 1
    short = models[0] if first < second else models[1]
    assert f"{short}: record " in capsys.readouterr().err
    assert not output.exists()


def test_both_models_need_a_calibration(monkeypatch, helpful, safe, mixed, tmp_path, capsys):
    bare = []
    for name, one in (("h", helpful), ("s", safe)):
        bare.append(with_context(one, tmp_path / name, 256))
        (bare[-1] / calibration.FILE).unlink()
    monkeypatch.setattr(score_command, "load_model", lambda *_, **__: pytest.fail("loaded"))
    output = tmp_path / "scores.jsonl"
    for first, second, missing in ((bare[0], safe, bare[0]), (helpful, bare[1], bare[1])):
        for rule in ("sum", "switch", "gate"):
            options = ("--safety_model", second, "--rule", rule)
            assert run("score", first, mixed, output, *options) == 1
            err = capsys.readouterr().err
            assert f"{missing / calibration.FILE}: there is no calibration" in err
            assert "Only differences of a reward model's scores mean anything" in err
            assert "posttrain calibrate" in err
    assert run("score", bare[0], mixed, output, "--calibrated") == 1
    assert "there is no calibration" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("name", ["owner/name", "tiny"])
def test_a_model_that_is_no_folder_needs_the_path_of_its_calibration(
    name, helpful, mixed, tmp_path, capsys
):
    output = tmp_path / "scores.jsonl"
    assert run("score", name, mixed, output, "--calibrated") == 1
    err = capsys.readouterr().err
    assert f"{name} is no folder that could hold its calibration; give its path as calib" in err
    assert "--output PATH" in err
    assert run("score", helpful, mixed, output, "--safety_model", name) == 1
    assert "give its path as safety_calibration" in capsys.readouterr().err


def test_calibrations_may_be_elsewhere_but_not_each_others(helpful, safe, mixed, tmp_path, capsys):
    output = tmp_path / "scores.jsonl"
    paths = [one / calibration.FILE for one in (helpful, safe)]
    doubled = calibration.read(paths[1])
    replace(doubled, scale=2 * doubled.scale).save(tmp_path / "doubled.json")
    options = ("--calibration", paths[0], "--safety_calibration", tmp_path / "doubled.json")
    assert run("score", helpful, mixed, output, "--safety_model", safe, *options) == 0
    assert column(output, "safety") == pytest.approx(2 * calibrated(safe), abs=1e-9)
    output.unlink()
    for option, path in (("--calibration", paths[1]), ("--safety_calibration", paths[0])):
        assert run("score", helpful, mixed, output, "--safety_model", safe, option, path) == 1
        assert "fitted for a model with another score head" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("command", ["score", "evaluate"])
@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--rule", "sum"), "rule"),
        (("--threshold", 0.15), "threshold"),
        (("--safety_weight", 1), "safety_weight"),
        (("--no_flags",), "flags"),
        (("--calibration", "x.json"), "calibration"),
        (("--safety_calibration", "x.json"), "safety_calibration"),
        (("--calibrated", "--safety_calibration", "x.json"), "safety_calibration"),
        (("--rule", "gate", "--threshold", 0.2), "rule, threshold"),
    ],
)
def test_settings_for_two_models_are_refused_with_one(command, options, names, tmp_path, capsys):
    assert run(command, "tiny", "x.jsonl", tmp_path / "x", *options) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"posttrain: {names}: given without safety_model, so it would have no")
    assert ("or calibrated" in err) == (names == "calibration")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rule", "vote"), "unknown rule 'vote'; known: sum, switch, gate"),
        (("--rule", "gate", "--threshold", 1.5), "a probability between 0 and 1, not 1.5"),
        (("--safety_weight", -1), "must be 0 or more"),
        (("--threshold", 0.2), "threshold has no effect with the rule sum; leave it out, or set"),
        (
            ("--rule", "gate", "--safety_weight", 1),
            "safety_weight has no effect with the rule gate",
        ),
        (("--no_flags",), "flags has no effect with the rule sum"),
    ],
)
def test_rules_that_make_no_sense_are_refused(options, message, tmp_path, capsys):
    more = ("--safety_model", "smollm2", *options)
    assert run("score", "tiny", "x.jsonl", tmp_path / "x", *more) == 1
    assert message in capsys.readouterr().err


def test_a_safety_model_that_diverged_is_named_with_the_group(
    helpful, safe, mixed, tmp_path, capsys
):
    broken, tokenizer = reward_model.load(safe)
    with torch.no_grad():
        score_head(broken).weight[:] = math.nan
    for part in (broken, tokenizer):
        part.save_pretrained(tmp_path / "broken")
    head = calibration.head_hash(broken)
    calibration.Calibration(1.0, 0.0, 3, head=head).save(tmp_path / "broken" / calibration.FILE)
    output = tmp_path / "scores.jsonl"
    options = ("--safety_model", tmp_path / "broken", "--rule", "gate")
    assert run("score", helpful, mixed, output, *options) == 1
    message = capsys.readouterr().err
    assert str(tmp_path / "broken") in message
    assert MIXED[0].id in message
    assert "training has diverged" in message
    assert not output.exists()


def test_an_evaluation_of_two_models_is_that_of_their_combined_score(
    helpful, safe, mixed, tmp_path
):
    options = ("--safety_model", safe, "--rule", "gate", "--threshold", 0.5)
    output, report = tmp_path / "scores.jsonl", tmp_path / "report.json"
    assert run("score", helpful, mixed, output, *options) == 0
    assert run("evaluate", helpful, mixed, report, *options, "--resamples", 5) == 0
    found = json.loads(report.read_text())
    scores = {(line["id"], line["response"]): line["score"] for line in lines(output)}
    right, count = Counter(), Counter()
    for group in MIXED:
        won = scores[group.id, "chosen"] > scores[group.id, "rejected"]
        for key in ("all", group.domain, (group.domain, str(group.strength))):
            right[key] += won
            count[key] += 1
    assert found["accuracy"]["estimate"] == pytest.approx(right["all"] / count["all"])
    for domain in ("helpfulness", "safety"):
        estimate = found["accuracy_by_domain"][domain]["estimate"]
        assert estimate == pytest.approx(right[domain] / count[domain])
        for strength, one in found["accuracy_by_domain_and_strength"][domain].items():
            key = domain, strength
            assert one["estimate"] == pytest.approx(right[key] / count[key])


def test_help_says_what_an_evaluation_of_two_models_means(capsys):
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "With a safety_model it is about the combined score" in out
    assert "its log-likelihood and calibration mean little" in out


@pytest.mark.parametrize("command", ["score", "evaluate"])
def test_no_output_replaces_a_file_of_the_model(model, data, capsys, command):
    before = (model / "config.json").read_text()
    assert run(command, model, data, model / "config.json") == 1
    assert "is read and would be overwritten" in capsys.readouterr().err
    assert (model / "config.json").read_text() == before


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("MPT", ("--layout", "exact"), "does not keep responses in one row apart"),
        ("Gemma 3, both sides", (), "reads tokens that follow a response"),
    ],
)
def test_a_model_is_checked_before_it_scores(data, tmp_path, capsys, name, options, problem):
    matrix.build(name, tmp_path / "other")
    assert run("score", tmp_path / "other", data, tmp_path / "scores.jsonl", *options) == 1
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "scores.jsonl").exists()
