"""Every help page: what it must not show, and what it must."""

import re
from dataclasses import fields

import pytest
from command_line import refused

from posttrain.cli import COMMANDS
from posttrain.commands.calibrate import CalibrateSettings
from posttrain.commands.evaluate import EvaluateSettings
from posttrain.commands.pages import PAGES
from posttrain.commands.policy_settings import DpoSettings, SftSettings
from posttrain.commands.rounds import RoundsSettings
from posttrain.commands.sample_settings import SampleSettings
from posttrain.commands.score import ScoreSettings
from posttrain.commands.train_settings import TrainSettings
from posttrain.policy.dpo import PreferenceConfig
from posttrain.policy.sft import FinetuningConfig
from posttrain.studies.registry import STUDIES
from posttrain.training.config import RankingConfig

OWN = [
    TrainSettings, RankingConfig, ScoreSettings, EvaluateSettings, CalibrateSettings,
    SampleSettings, SftSettings, FinetuningConfig, DpoSettings, PreferenceConfig, RoundsSettings,
    *{kind for study in STUDIES.values()
      for kind in (study.simulated, study.human, study.human_full) if kind},
]  # fmt: skip
#: Commands with settings, and so with two pages.
WITH_SETTINGS = (
    "train", "score", "evaluate", "calibrate", "sample", "sft", "dpo", "rounds",
    *(f"study {name}" for name in STUDIES),
)  # fmt: skip


@pytest.fixture
def help_of(capsys):
    def help_of(command, option="--help"):
        assert refused(*command.split(), option) == 0
        return capsys.readouterr().out

    return help_of


def options(text):
    return re.findall(r"^  (-\S+)", text, flags=re.MULTILINE)


def test_every_command_has_a_page():
    assert {*COMMANDS} <= {*PAGES}


def test_pages_are_plain_and_name_each_option_once(help_of):
    pages = [(command, "--help") for command in {*PAGES, *WITH_SETTINGS}]
    pages += [(command, "--help_all") for command in WITH_SETTINGS]
    for command, option in pages:
        text = help_of(command, option)
        for mark in ("%%", "``", ":func:", ":class:", "…"):
            assert mark not in text, (command, option, mark)
        names = options(text)
        assert len(names) == len({*names}) > 0, command
        assert all(re.fullmatch(r"--[a-z0-9_]+", name) for name in names), (command, names)


def test_some_forty_settings_of_train_matter(help_of):
    assert 35 <= len({*options(help_of("train"))} - {"--config", "--help", "--help_all"}) <= 50
    everything = options(help_of("train", "--help_all"))
    assert len(everything) > 120
    assert {f"--{field.name}" for kind in (TrainSettings, RankingConfig) for field in fields(kind)
            if field.init} <= {*everything}  # fmt: skip


def test_every_setting_of_this_package_is_explained():
    for kind in OWN:
        base = next(
            (
                base
                for base in kind.__mro__
                if base.__module__.split(".")[0] in ("transformers", "trl")
            ),
            None,
        )
        for field in fields(kind):
            if base is None or base.__dataclass_fields__.get(field.name) is not field:
                assert field.metadata.get("help", "").strip(), (kind, field.name)


def test_a_page_names_only_settings_that_there_are(help_of):
    known = {command: {*options(help_of(command, "--help_all"))} for command in WITH_SETTINGS}
    for command, page in PAGES.items():
        sharing = [other for other in {*known} & {*PAGES} if PAGES[other].groups is page.groups]
        for name in " ".join([*page.groups.values(), page.seldom]).split():
            assert any(f"--{name}" in known[other] for other in sharing), (command, name)
