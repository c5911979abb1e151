"""The runs that this project describes: every file is understood, and speaks of what there is."""

import re
from pathlib import Path

import pytest
import yaml
from trl import TrlParser

from posttrain.commands.common import EMBEDDED
from posttrain.commands.policy_settings import DpoSettings, SftSettings
from posttrain.commands.rounds import RoundsSettings
from posttrain.commands.train_settings import TrainSettings
from posttrain.data.sources.hub.read import HUB
from posttrain.data.sources.named import ON_HUB
from posttrain.policy.dpo import PreferenceConfig
from posttrain.policy.sft import FinetuningConfig
from posttrain.training.config import RankingConfig

FOLDER = Path(__file__).parents[1] / "runs"
RUNS = sorted(FOLDER.glob("*.yaml"))
#: Commands whose name begins that of a run, and their settings; other runs are of train.
KINDS = {
    "sft": (SftSettings, FinetuningConfig),
    "dpo": (DpoSettings, PreferenceConfig),
    "rounds": (RoundsSettings,),
}
#: Settings that name sources.
SOURCES = ("data", "eval_data", "prompt_data", "first_data")


def command_of(path):
    first = path.stem.partition("_")[0]
    return first if first in KINDS else "train"


def test_there_are_runs_for_every_machine():
    names = {path.stem for path in RUNS}
    assert names >= {
        "tiny_cpu", "sft_tiny_cpu", "dpo_tiny_cpu", "rounds_tiny_cpu", "smollm2_cpu", "smollm2_gpu",
        "helpfulness_gpu", "safety_gpu", "llama31_8b_gpu", "llama31_8b_fsdp",
    }  # fmt: skip


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_setting_of_a_run_is_understood(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    kinds = KINDS.get(command_of(path), (TrainSettings, RankingConfig))
    # There is no GPU where tests run, and settings of trainers ask for one.
    cpu = ["--use_cpu", "true"] if len(kinds) > 1 else []
    settings, *trainer, unknown = TrlParser(kinds).parse_args_and_config(
        ["--config", str(path), *cpu], return_remaining_strings=True
    )
    config = trainer[0] if trainer else settings
    assert not unknown
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, value in given.items():
        holder = settings if hasattr(settings, name) else config
        if name != "use_cpu":
            assert getattr(holder, name) == value, name
    assert settings.model in EMBEDDED or re.fullmatch(r"[\w-]+/[\w.-]+", settings.model)
    for source in [one for name in SOURCES for one in getattr(settings, name, [])]:
        if "/" in source:
            assert ON_HUB.fullmatch(source)["name"] in HUB
    assert config.output_dir == f"runs/output/{path.stem}"


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_the_first_lines_of_a_run_say_how_to_start_it(path):
    head = path.read_text(encoding="utf-8").partition("\nmodel:")[0]
    assert f"posttrain {command_of(path)} --config runs/{path.name}" in head
