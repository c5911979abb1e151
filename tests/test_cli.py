"""The command line: exit codes, output, refusals, and files that can be read again."""

import logging
import subprocess
import sys
from collections import Counter

import pytest

from posttrain import cli
from posttrain.commands import calibrate
from posttrain.data.reading import read_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.evaluation.calibration import Calibration
from posttrain.evidence import records
from posttrain.models import embedded
from posttrain.studies.common import groups
from posttrain.studies.edits import study as edits
from posttrain.studies.margin import study as margin
from posttrain.studies.packing import full, rows

COMMANDS = ([], ["data"], ["data", "check"], ["data", "convert"], ["data", "simulate"], ["study"])
ARGUMENT_PAIR = (
    "<annotatedArgumentPair><id>x</id>"
    "<arg1><stance>Cats</stance><text>{text}</text></arg1>"
    "<arg2><stance>Cats</stance><text>Dogs.</text></arg2>"
    "<debateMetaData><title>Cats or dogs?</title></debateMetaData><mTurkAssignments>"
    "<mTurkAssignment><value>a1</value></mTurkAssignment>{more}</mTurkAssignments>"
    "</annotatedArgumentPair>"
)
TIE = "<mTurkAssignment><value>a2</value></mTurkAssignment>"


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def refused(*arguments):
    """The exit code of a command line that is not understood, or asks for help."""
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    return stop.value.code


@pytest.fixture
def original(tmp_path):
    folder = tmp_path / "original"
    folder.mkdir()
    pairs = [ARGUMENT_PAIR.format(text=text, more="") for text in ("Cats.", "Cats purr.")]
    pairs.append(ARGUMENT_PAIR.format(text="Cats.", more=TIE))
    pairs.append(ARGUMENT_PAIR.format(text="Cats.", more=""))
    (folder / "a.xml").write_text(f"<list>{''.join(pairs)}</list>", encoding="utf-8")
    return folder


@pytest.fixture
def good_file(tmp_path):
    path = tmp_path / "good.jsonl"
    assert run("data", "simulate", path, "--groups", 5) == 0
    return path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_is_there(command, capsys):
    assert refused(*command, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: {' '.join(['posttrain', *command])}")


def test_help_lists_what_is_done_with_models(capsys):
    assert refused("--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for line in (
        "train train a reward model",
        "calibrate give the scores of a reward model a unit and a zero (see calibrate --help)",
        "score score the responses of files",
        "evaluate report how well a reward model ranks",
    ):
        assert line in shown


@pytest.mark.parametrize(("source", "setting"), [("simulator", "groups"), ("ukpconvarg", "layer")])
def test_help_of_the_margin_study_depends_on_its_source(source, setting, capsys):
    assert refused("study", "margin", "--source", source, "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: posttrain study margin")
    assert f"--{setting}" in shown
    assert "--source NAME" in shown
    assert ("--layer" in shown) == (source == "ukpconvarg")


@pytest.mark.parametrize(
    ("source", "layers", "size"), [("simulator", 0, 3000), ("ukpconvarg", 6, 600)]
)
def test_help_of_the_packing_study_shows_the_defaults_of_its_source(source, layers, size, capsys):
    assert refused("study", "packing", "--source", source, "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: posttrain study packing")
    words = " ".join(shown.split())
    assert "--source NAME" in words
    assert f"Training groups. (default: {size})" in words
    assert f"0 trains the whole model. (default: {layers})" in words
    assert ("running positions" in words) == (source == "simulator")


def test_help_lists_the_studies(capsys):
    assert refused("study", "--help") == 0
    shown = capsys.readouterr().out
    assert "what the margin buys" in shown
    assert "what one row for all responses changes" in shown
    assert "how edited responses are used" in shown


@pytest.mark.parametrize(
    "command",
    [
        ["nonsense"],
        ["data"],
        ["data", "check"],
        ["data", "simulate"],
        ["data", "simulate", "x.jsonl", "--domain", "beauty"],
        ["data", "simulate", "x.jsonl", "--groups", "many"],
        ["data", "convert", "ukpconvarg"],
        ["study", "nonsense"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_is_not_understood_exits_with_2(command, capsys):
    assert refused(*command) == 2
    assert capsys.readouterr().err.startswith("usage: posttrain")


def test_an_unknown_option_is_named(good_file, capsys):
    assert refused("data", "check", good_file, "--fast") == 2
    assert "unknown arguments: --fast" in capsys.readouterr().err


def test_simulate_writes_what_the_simulator_draws(tmp_path, capsys):
    path = tmp_path / "drawn.jsonl.gz"
    options = ("--groups", 30, "--seed", 4, "--domain", "safety", "--edited-share", 0.5,
               "--sensitive", 0.7)  # fmt: skip
    assert run("data", "simulate", path, *options) == 0
    assert capsys.readouterr().out == f"wrote 30 records to {path}\n"
    drawn = simulate(30, seed=4, domain="safety", edited_share=0.5, sensitive=0.7)
    assert read_groups(path).groups == [group.ranked for group in drawn]
    assert any(group.ranked.has_edit for group in drawn)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--edited-share", 1.5), "shares must lie in [0, 1]"),
        (("--groups", -1), "count must not be negative"),
    ],
)
def test_simulate_refuses_what_cannot_be(tmp_path, capsys, options, message):
    path = tmp_path / "x.jsonl"
    assert run("data", "simulate", path, *options) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("posttrain: ")
    assert message in captured.err
    assert not path.exists()


def test_an_output_of_unknown_kind_is_refused(tmp_path, capsys):
    assert run("data", "simulate", tmp_path / "x.csv", "--groups", 2) == 1
    assert "x.csv" in capsys.readouterr().err


def test_check_summarises_and_succeeds(good_file, capsys):
    assert run("data", "check", good_file) == 0
    captured = capsys.readouterr()
    assert str(good_file) in captured.out
    assert captured.err == ""


def test_check_lists_bad_records_and_fails_unless_they_are_acceptable(good_file, capsys):
    lines = good_file.read_text().splitlines()
    good_file.write_text("\n".join([*lines, '{"prompt": "x"}']) + "\n")
    assert run("data", "check", good_file) == 1
    assert f"{good_file}, line 6" in capsys.readouterr().err.replace(":6", ", line 6")
    assert run("data", "check", good_file, "--skip-bad") == 0
    assert "6" in capsys.readouterr().err


def test_check_of_a_missing_file_fails_even_so(tmp_path, capsys):
    for options in ((), ("--skip-bad",)):
        assert run("data", "check", tmp_path / "gone.jsonl", *options) == 1
        assert "gone.jsonl" in capsys.readouterr().err


def test_convert_writes_records_and_counts_what_it_drops(original, tmp_path, capsys):
    output = tmp_path / "converted.jsonl"
    assert run("data", "convert", "ukpconvarg", original, output) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"wrote 2 records to {output}",
        "dropped 1: repeated pair",
        "dropped 1: tied votes",
    ]
    assert [group.chosen for group in read_groups(output).groups] == ["Cats.", "Cats purr."]


def test_convert_refuses_an_unknown_name(tmp_path, capsys):
    assert run("data", "convert", "nonsense", tmp_path, tmp_path / "x.jsonl") == 1
    assert "unknown original 'nonsense'; known: ukpconvarg, seeda" in capsys.readouterr().err


def test_convert_that_fails_half_way_leaves_no_file(original, tmp_path, capsys):
    (original / "b.xml").write_text("<list>")
    output = tmp_path / "converted.jsonl"
    assert run("data", "convert", "ukpconvarg", original, output) == 1
    assert "b.xml" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [original]


def test_convert_of_a_missing_original_is_refused(tmp_path, capsys):
    assert run("data", "convert", "ukpconvarg", tmp_path / "gone", tmp_path / "x.jsonl") == 1
    assert "gone" in capsys.readouterr().err


@pytest.mark.parametrize("more", [{}, {"groups of other domains": 2, "bad records": 1}])
def test_calibrate_tells_what_was_fitted_and_what_it_changed(monkeypatch, tmp_path, capsys, more):
    seen = []

    def fitted(settings):
        seen.append(settings)
        return calibrate.Account(Calibration(1.23456, -0.5, 1234), -0.7, -0.65432, Counter(more))

    monkeypatch.setattr(calibrate, "run", fitted)
    options = ("--model", tmp_path, "--data", "a.jsonl", "b.jsonl", "--domain", "safety")
    assert run("calibrate", *options) == 0
    (settings,) = seen
    assert (settings.data, settings.domain) == (["a.jsonl", "b.jsonl"], "safety")
    assert (settings.layout, settings.output) == ("separate", None)
    assert capsys.readouterr().out.splitlines() == [
        "fitted on 1,234 pairs: scale 1.235 nats per unit of score, centre -0.5",
        "log-likelihood of a held-out pair: -0.7000 nats before, -0.6543 after (a coin flip gives "
        "-0.6931)",
        f"wrote {tmp_path / 'calibration.json'}",
        *(["2 groups of other domains, 1 bad records"] if more else []),
    ]


@pytest.mark.parametrize("options", [("--layers", 3), ("surplus",), ("--batch_tokens", "many")])
def test_calibrate_exits_with_2_on_options_it_does_not_know(monkeypatch, tmp_path, options, capsys):
    monkeypatch.setattr(calibrate, "run", lambda *_: pytest.fail("too late"))
    assert refused("calibrate", "--model", tmp_path, *options, "--data", "x.jsonl") == 2
    assert capsys.readouterr().err.startswith("usage: posttrain calibrate")


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(
        "sizes: [8, 16]\nseeds: 1\nlearning_rates: [0.003]\nshared_learning_rate: 0.003\n"
        "batch_size: 8\ngroups: 80\nresamples: 20\n"
    )
    return path


@pytest.fixture
def tiny(monkeypatch, tiny_checkpoint):
    monkeypatch.setattr(groups.embedded, "tiny", lambda: tiny_checkpoint)


def test_study_margin_takes_its_settings_from_yaml(tiny, config, tmp_path, capsys):
    folder = tmp_path / "results"
    options = ("--config", config, "--output", folder, "--profile", "test", "--data_seed", 7)
    assert run("study", "margin", *options) == 0
    path = folder / "margin-simulator.json"
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {path}"
    record = records.load(path)
    assert record.profile == "test"
    assert record.settings["sizes"] == [8, 16]
    assert record.settings["groups"] == 80
    # The command line adds to the file; what neither names keeps its default.
    assert record.settings["data_seed"] == 7
    assert record.settings["test_share"] == 0.3
    assert set(record.tables["metrics"]["size"]) == {8, 16}


def test_the_command_line_wins_over_the_file(monkeypatch, config, tmp_path):
    seen = []

    def stop(source, *, profile, settings):
        seen.append((source, profile, settings))
        raise ValueError("stopped here")

    monkeypatch.setattr(margin, "run", stop)
    assert run("study", "margin", "--config", config, "--sizes", 5, 6, 7) == 1
    ((source, profile, settings),) = seen
    assert (source, profile) == ("simulator", "custom")
    assert (settings.sizes, settings.groups) == ([5, 6, 7], 80)
    assert (
        run("study", "margin", "--source", "mine", "--penalties", 0.1, 1, "--pooling", "last") == 1
    )
    assert seen[1][0] == "mine"
    assert (seen[1][2].penalties, seen[1][2].pooling) == ([0.1, 1.0], "last")


def test_finished_runs_are_kept_in_the_folder_that_is_named(monkeypatch, caplog, tmp_path):
    seen = []

    def stop(source, **options):
        seen.append(options.get("finished"))
        logging.getLogger("posttrain.studies").info("a line of progress")
        raise ValueError("stopped here")

    for study, module in (("packing", full), ("edits", edits), ("margin", margin)):
        monkeypatch.setattr(module, "run", stop)
        assert run("study", study, "--finished", tmp_path) == 1
        assert run("study", study) == 1
    assert seen == [tmp_path, None] * 3
    assert caplog.messages.count("a line of progress") == 6
    monkeypatch.setattr(rows, "run", lambda *_, **__: pytest.fail("too late"))
    assert refused("study", "rows", "--finished", tmp_path) == 2


@pytest.mark.parametrize(("study", "module"), [("edits", edits), ("margin", margin)])
def test_the_way_of_training_decides_the_settings(study, module, monkeypatch, capsys):
    seen = []

    def stop(source, *, profile, settings):
        seen.append((source, type(settings).__name__, settings.seeds))
        raise ValueError("stopped here")

    monkeypatch.setattr(module, "run", stop)
    for options in (
        (), ("--source", "mine"), ("--source", "mine", "--training", "full"),
        ("--source", "mine", "--training", "heads"),
    ):  # fmt: skip
        assert run("study", study, *options, "--seeds", 4) == 1
    assert seen == [
        ("simulator", "FullSettings", 4), ("mine", "HeadSettings", 4),
        ("mine", "HumanFullSettings", 4), ("mine", "HeadSettings", 4),
    ]  # fmt: skip
    capsys.readouterr()
    assert run("study", study, "--training", "heads") == 1
    assert "on the simulator whole models take seconds to train" in capsys.readouterr().err
    assert refused("study", study, "--training", "magic") == 2


def test_study_margin_refuses_settings_that_do_not_fit(tiny, config, tmp_path, capsys):
    options = ("--config", config, "--output", tmp_path / "results")
    assert run("study", "margin", *options, "--sizes", 500) == 1
    assert "size 500 exceeds" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_study_margin_exits_with_2_on_an_option_it_does_not_know(monkeypatch, capsys):
    monkeypatch.setattr(margin, "run", lambda *_, **__: pytest.fail("too late"))
    assert refused("study", "margin", "--layer", 3) == 2


def test_study_margin_names_unknown_settings(monkeypatch, config, capsys):
    monkeypatch.setattr(margin, "run", lambda *_, **__: pytest.fail("too late"))
    config.write_text("sizes: [8]\nbatchsize: 3\n")
    for options in (("--config", config), ("--batchsize", 3)):
        try:
            code = run("study", "margin", *options)
        except SystemExit as stop:
            code = stop.code
        assert code in (1, 2)
        assert "batchsize" in capsys.readouterr().err


def test_study_margin_without_human_data_says_what_to_do_at_once(monkeypatch, capsys):
    monkeypatch.setattr(embedded, "smollm2", lambda: pytest.fail("unpacked for nothing"))
    monkeypatch.delenv("POSTTRAIN_DATA", raising=False)
    assert run("study", "margin", "--source", "ukpconvarg") == 1
    assert "POSTTRAIN_DATA is not set" in capsys.readouterr().err


@pytest.fixture
def packing_config(tmp_path):
    path = tmp_path / "packing.yaml"
    path.write_text(
        "arms: [separate, 'llama3, ranked']\ntests: [llama3, separate]\nsize: 8\ntest_size: 6\n"
        "seeds: 1\nlearning_rates: [0.003]\nbatch_size: 8\ngroups: 40\nresamples: 5\n"
    )
    return path


def test_study_packing_runs_with_settings_from_yaml_and_the_command_line(
    tiny, packing_config, tmp_path, capsys
):
    folder = tmp_path / "results"
    options = ("--config", packing_config, "--output", folder, "--profile", "test", "--size", 9)
    assert run("study", "packing", *options) == 0
    path = folder / "packing-simulator.json"
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {path}"
    record = records.load(path)
    assert (record.study, record.profile) == ("packing", "test")
    assert record.settings["size"] == 9
    assert record.settings["test_size"] == record.data["test groups"] == 6
    # What neither names keeps its default.
    assert record.settings["test_share"] == 0.3
    matrix = record.tables["matrix"]
    assert matrix["trained"].unique().tolist() == ["separate", "llama3, ranked"]
    assert matrix["tested"].unique().tolist() == ["llama3", "separate"]


def test_study_rows_writes_a_record_of_its_own(tiny, tmp_path, capsys):
    options = ("--groups", 20, "--distance_groups", 2, "--equality_groups", 1, "--resamples", 5)
    assert run("study", "rows", *options, "--output", tmp_path) == 0
    path = tmp_path / "rows-simulator.json"
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {path}"
    record = records.load(path)
    assert record.settings["groups"] == record.data["groups"] == 20
    assert record.settings["row_tokens"] == 4096
    assert "exact row" in set(record.tables["equality"]["way"])


def test_names_of_arms_may_hold_spaces_and_each_study_runs_its_own(monkeypatch):
    seen = []

    def stop(source, *, profile, settings):
        seen.append((source, profile, settings))
        raise ValueError("stopped here")

    monkeypatch.setattr(full, "run", stop)
    monkeypatch.setattr(margin, "run", lambda *_, **__: pytest.fail("the other study"))
    assert run("study", "packing", "--arms", "separate", "llama3, ranked", "--seeds", 2) == 1
    assert run("study", "packing", "--source", "mine", "--learning_rates", 0.1, 1, "--gpu") == 1
    (simulator, human) = seen
    assert simulator[:2] == ("simulator", "custom")
    assert simulator[2] == full.PackingSettings(arms=["separate", "llama3, ranked"], seeds=2)
    assert human[0] == "mine"
    assert human[2] == full.HumanPackingSettings(learning_rates=[0.1, 1.0], gpu=True)


@pytest.mark.parametrize(
    "options",
    [("--layer", 3), ("--batchsize", 3), ("--size", "many"), ("surplus",), ("--gpu", "perhaps")],
)
def test_study_packing_exits_with_2_on_options_it_does_not_know(monkeypatch, options, capsys):
    monkeypatch.setattr(full, "run", lambda *_, **__: pytest.fail("too late"))
    assert refused("study", "packing", *options) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("usage: posttrain study packing")
    assert str(options[0]) in shown


def test_study_packing_refuses_what_does_not_fit(tiny, packing_config, tmp_path, capsys):
    options = ("--config", packing_config, "--output", tmp_path / "results")
    assert run("study", "packing", *options, "--arms", "separate", "llama4") == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("posttrain: arms must contain separate and only names of")
    assert captured.err.endswith("got separate, llama4\n")
    assert run("study", "packing", *options, "--size", 500) == 1
    assert "size 500 exceeds" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_study_packing_without_human_data_says_what_to_do(monkeypatch, tiny_checkpoint, capsys):
    monkeypatch.delenv("POSTTRAIN_DATA", raising=False)
    monkeypatch.setattr(groups.embedded, "smollm2", lambda: tiny_checkpoint)
    assert run("study", "packing", "--source", "ukpconvarg") == 1
    assert "POSTTRAIN_DATA is not set" in capsys.readouterr().err


def test_the_console_script_answers_help_without_heavy_modules():
    code = (
        "import sys; from posttrain import cli; sys.argv = ['posttrain', '--help']\n"
        "try: cli.entry()\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert not {'torch', 'transformers', 'trl', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: posttrain")
