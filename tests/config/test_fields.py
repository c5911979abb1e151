"""Settings explain themselves, and their defaults are nobody's to change."""

from dataclasses import dataclass, fields
from types import SimpleNamespace

import pytest
from trl import TrlParser

from posttrain.config.fields import at_least_one, one_of, setting
from posttrain.studies.margin.full import FullSettings, HumanFullSettings
from posttrain.studies.margin.heads import HeadSettings


@dataclass
class Example:
    sizes: list[int] = setting([1, 2], "Numbers of pairs.")
    rate: float = setting(0.5, "Learning rate.")


def test_a_setting_has_a_default_and_an_explanation():
    assert Example() == Example([1, 2], 0.5)
    assert [field.metadata["help"] for field in fields(Example)] == [
        "Numbers of pairs.",
        "Learning rate.",
    ]


def test_numbers_below_one_are_named():
    settings = SimpleNamespace(steps=1, rounds=0, limit=None)
    at_least_one(settings, "steps", "limit")
    with pytest.raises(ValueError, match=r"^rounds must be at least 1, not 0$"):
        at_least_one(settings, "steps", "rounds")


def test_a_value_must_be_among_those_listed():
    one_of(SimpleNamespace(rate=2, rates=[1, 2]), "rate", "rates")
    with pytest.raises(ValueError, match=r"^rate 3 is not one of rates \[1, 2\]$"):
        one_of(SimpleNamespace(rate=3, rates=[1, 2]), "rate", "rates")


def test_a_list_belongs_to_one_instance():
    first = Example()
    first.sizes.append(3)
    assert Example().sizes == [1, 2]


@pytest.mark.parametrize("kind", [FullSettings, HumanFullSettings, HeadSettings])
def test_every_setting_of_a_study_is_explained_and_can_be_given(kind, capsys):
    assert all(field.metadata["help"].endswith(".") for field in fields(kind))
    (found,) = TrlParser(kind).parse_args_and_config(args=[])
    assert found == kind()
    (found,) = TrlParser(kind).parse_args_and_config(args=["--sizes", "7", "9", "--seeds", "2"])
    assert (found.sizes, found.seeds) == ([7, 9], 2)
    with pytest.raises(SystemExit) as stop:
        TrlParser(kind).parse_args_and_config(args=["--help"])
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for field in fields(kind):
        assert f"--{field.name}" in shown
        assert field.metadata["help"].rstrip(".") in shown
