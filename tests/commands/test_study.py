"""posttrain study: which settings a study takes from where, and what it refuses."""

import pytest
from command_line import refused, run

from posttrain.errors import UserError
from posttrain.evidence import records
from posttrain.models import embedded
from posttrain.studies.common import groups
from posttrain.studies.common.study import Study
from posttrain.studies.packing import full


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


@pytest.fixture
def calls(monkeypatch):
    """What studies were asked to run; none of them is."""
    seen = []

    def stop(study, source, settings, *, profile, cache_dir):
        seen.append((study.name, source, settings, profile, cache_dir))
        raise UserError("stopped here")

    monkeypatch.setattr(Study, "run", stop)
    return seen


def test_the_command_line_wins_over_the_file(calls, config):
    assert run("study", "margin", "--config", config, "--sizes", 5, 6, 7) == 1
    ((study, source, settings, profile, _),) = calls
    assert (study, source, profile) == ("margin", "simulator", "custom")
    assert (settings.sizes, settings.groups) == ([5, 6, 7], 80)


def test_names_of_arms_may_hold_spaces(calls):
    arms = ("separate", "causal, ranked")
    assert run("study", "packing", "--arms", *arms, "--seeds", 2) == 1
    ((study, _, settings, *_),) = calls
    assert study == "packing"
    assert settings == full.PackingSettings(arms=list(arms), seeds=2)


def test_finished_runs_are_kept_in_the_folder_that_is_named(calls, tmp_path):
    for study in ("packing", "edits", "margin"):
        assert run("study", study, "--cache_dir", tmp_path) == 1
        assert run("study", study) == 1
    assert [call[-1] for call in calls] == [tmp_path, None] * 3
    assert refused("study", "rows", "--cache_dir", tmp_path) == 2
    assert run("study", "margin", "--finished", tmp_path) == 1
    assert calls[-1][-1] == tmp_path


@pytest.mark.parametrize("study", ["edits", "margin", "tradeoff"])
def test_the_way_of_training_decides_the_settings(study, calls, capsys):
    for options in (
        (), ("--source", "mine"), ("--source", "mine", "--training", "full"),
        ("--source", "mine", "--training", "heads"),
    ):  # fmt: skip
        assert run("study", study, *options, "--seeds", 4) == 1
    seen = [(source, type(chosen).__name__, chosen.seeds) for _, source, chosen, *_ in calls]
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


def test_study_margin_without_human_data_says_what_to_do_at_once(monkeypatch, capsys):
    monkeypatch.setattr(embedded, "smollm2", lambda: pytest.fail("unpacked for nothing"))
    monkeypatch.delenv("POSTTRAIN_DATA", raising=False)
    assert run("study", "margin", "--source", "ukpconvarg") == 1
    assert "POSTTRAIN_DATA is not set" in capsys.readouterr().err


@pytest.fixture
def packing_config(tmp_path):
    path = tmp_path / "packing.yaml"
    path.write_text(
        "arms: [separate, 'causal, ranked']\ntests: [causal, separate]\nsize: 8\ntest_size: 6\n"
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
    assert matrix["trained"].unique().tolist() == ["separate", "causal, ranked"]
    assert matrix["tested"].unique().tolist() == ["causal", "separate"]


def test_study_rows_writes_a_record_of_its_own(tiny, tmp_path, capsys):
    options = ("--groups", 20, "--distance_groups", 2, "--equality_groups", 1, "--resamples", 5)
    assert run("study", "rows", *options, "--output", tmp_path) == 0
    path = tmp_path / "rows-simulator.json"
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {path}"
    record = records.load(path)
    assert record.settings["groups"] == record.data["groups"] == 20
    assert record.settings["pack_length"] == 4096
    assert "exact row" in set(record.tables["equality"]["way"])


@pytest.mark.parametrize(
    "options",
    [("--layer", 3), ("--batchsize", 3), ("--size", "many"), ("surplus",), ("--gpu", "perhaps")],
)
def test_study_packing_exits_with_2_on_options_it_does_not_know(calls, options, capsys):
    assert refused("study", "packing", *options) == 2
    shown = capsys.readouterr().err
    assert "posttrain study packing" in shown
    assert str(options[0]) in shown
    assert not calls


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
