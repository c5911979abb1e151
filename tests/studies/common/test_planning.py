"""Which way of training a source gets, and names of runs that fit their settings."""

from dataclasses import dataclass

import pytest

from posttrain.studies.common.planning import planned, trains_whole_models


@dataclass(frozen=True)
class Heads:
    epochs: int = 1


@dataclass(frozen=True)
class Full:
    epochs: int = 1


def settings_for(source, training=None):
    return Full if trains_whole_models(source, training) else Heads


def name_of(source, settings):
    full = isinstance(settings, Full) and source != "simulator"
    return source + "-full" * full + "-longer" * (settings.epochs > 1)


@pytest.mark.parametrize(
    ("source", "training", "whole"),
    [
        ("simulator", None, True), ("simulator", "full", True), ("seeda", None, False),
        ("seeda", "heads", False), ("seeda", "full", True),
    ],
)  # fmt: skip
def test_whole_models_are_trained_on_the_simulator_or_if_asked_for(source, training, whole):
    assert trains_whole_models(source, training) is whole


def test_ways_of_training_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"whole models take seconds to train.*use training"):
        trains_whole_models("simulator", "heads")
    with pytest.raises(ValueError, match="unknown training 'magic'; known: heads, full"):
        trains_whole_models("seeda", "magic")


def test_a_name_says_what_is_run_on_which_source():
    runs = {"simulator": {}, "seeda": {}, "seeda-full": {}, "simulator-longer": {"epochs": 3}}
    assert planned(runs, settings_for, name_of, suffixes=["-longer"]) == [
        ("simulator", Full()), ("seeda", Heads()), ("seeda", Full()), ("simulator", Full(3)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "given", "true_name"),
    [
        ("simulator", {"epochs": 2}, "simulator-longer"), ("simulator-full", {}, "simulator"),
        ("simulator-longer", {}, "simulator"),
    ],
)  # fmt: skip
def test_a_name_that_does_not_fit_is_refused_with_the_one_that_does(name, given, true_name):
    message = f"the run named '{name}' would give a record named '{true_name}'; try another"
    with pytest.raises(ValueError, match=message):
        planned({name: given}, settings_for, name_of, suffixes=["-longer"], remedy="try another")


def test_settings_that_do_not_exist_are_refused():
    with pytest.raises(TypeError, match="magic"):
        planned({"seeda": {"magic": 1}}, settings_for, name_of)
