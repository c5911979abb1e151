"""The runs that this project describes: every file is understood, and speaks of what there is."""

import re
from pathlib import Path

import pytest
import yaml
from trl import TrlParser

from posttrain.commands.train_settings import TrainSettings
from posttrain.data.sources.hub.read import HUB
from posttrain.data.sources.named import ON_HUB
from posttrain.models import embedded
from posttrain.training.config import RankingConfig

FOLDER = Path(__file__).parents[1] / "runs"
RUNS = sorted(FOLDER.glob("*.yaml"))


def test_there_are_runs_for_every_machine():
    names = {path.stem for path in RUNS}
    assert names >= {
        "tiny_cpu", "smollm2_cpu", "smollm2_gpu", "helpfulness_gpu", "safety_gpu",
        "llama31_8b_gpu", "llama31_8b_fsdp",
    }  # fmt: skip


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_setting_of_a_run_is_understood(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    parser = TrlParser((TrainSettings, RankingConfig))
    settings, config, unknown = parser.parse_args_and_config(
        ["--config", str(path), "--use_cpu", "true"], return_remaining_strings=True
    )
    assert not unknown
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, value in given.items():
        holder = settings if hasattr(settings, name) else config
        if name != "use_cpu":
            assert getattr(holder, name) == value, name
    assert settings.model in ("tiny", "smollm2") or re.fullmatch(r"[\w-]+/[\w.-]+", settings.model)
    assert settings.model not in ("tiny", "smollm2") or hasattr(embedded, settings.model)
    for source in settings.data + settings.eval_data:
        if "/" in source:
            assert ON_HUB.fullmatch(source)["name"] in HUB
    assert config.output_dir == f"runs/output/{path.stem}"


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_the_first_lines_of_a_run_say_how_to_start_it(path):
    head = path.read_text(encoding="utf-8").partition("\nmodel:")[0]
    assert f"posttrain train --config runs/{path.name}" in head
