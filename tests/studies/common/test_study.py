"""Runs of a study as notebooks give them: what is refused, and what the profiles hold."""

from pathlib import Path

import pytest
import yaml

from posttrain.errors import UserError
from posttrain.studies.edits import examples
from posttrain.studies.edits import study as edits
from posttrain.studies.growth import study as growth
from posttrain.studies.margin import study as margin
from posttrain.studies.packing import rows
from posttrain.studies.packing import study as packing
from posttrain.studies.recipe import study as recipe
from posttrain.studies.tradeoff import study as tradeoff

PARAMS = Path(__file__).parents[3] / "notebooks" / "params"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"seed": 2}, "run 'simulator': unknown settings: seed; known: groups, edited_share"),
        ({"seeds": "two"}, "run 'simulator': seeds must be a whole number, not 'two'"),
        ({"seeds": None}, "run 'simulator': seeds must be a whole number, not None"),
        ({"sizes": 100}, r"run 'simulator': sizes must be a list \(of a whole number each\)"),
        ({"shared_learning_rate": 1.0}, "run 'simulator': shared_learning_rate 1.0 is not one of"),
        ([1], r"run 'simulator': settings must be a mapping from name to value, not \[1\]"),
    ],
)
def test_a_run_that_cannot_be_is_refused(given, sentence):
    with pytest.raises(UserError, match=sentence):
        margin.STUDY.parse_runs({"simulator": given})


def test_settings_of_every_run_replace_its_own_where_they_are_given():
    runs = {"simulator": {"seeds": 1, "sizes": [9], "learning_rates": ["3e-3"]}, "seeda": None}
    (_, simulated), (_, human) = margin.STUDY.parse_runs(runs, seeds=2, sizes=None)
    assert (simulated.seeds, simulated.sizes, simulated.learning_rates) == (2, [9], [3e-3])
    assert human.seeds == 2
    with pytest.raises(UserError, match="run 'seeda': unknown settings: groups"):
        margin.STUDY.parse_runs(runs, groups=100)


@pytest.mark.parametrize("profile", ["quick", "simulator", "real"])
@pytest.mark.parametrize(
    ("notebook", "parameter", "study"),
    [
        ("01_margin_ablation", "runs", margin.STUDY),
        ("02_single_row_packing", "rows", rows.STUDY),
        ("02_single_row_packing", "growth", growth.STUDY),
        ("02_single_row_packing", "runs", packing.STUDY),
        ("03_edited_responses", "runs", edits.STUDY),
        ("03_edited_responses", "examples", examples.STUDY),
        ("04_helpfulness_and_safety", "runs", tradeoff.STUDY),
        ("06_smaller_choices", "runs", recipe.STUDY),
    ],
)
def test_the_profiles_hold_runs_that_can_be(profile, notebook, parameter, study):
    values = yaml.safe_load((PARAMS / profile / f"{notebook}.yaml").read_text(encoding="utf-8"))
    assert len(study.parse_runs(values[parameter])) == len(values[parameter])
