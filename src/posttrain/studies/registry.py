"""All studies by name: what the command line, the notebooks and the scoreboard go by."""

from posttrain.studies.best_of_n import study as best_of_n
from posttrain.studies.choices import study as choices
from posttrain.studies.common.study import Study
from posttrain.studies.edits import examples
from posttrain.studies.edits import study as edits
from posttrain.studies.growth import study as growth
from posttrain.studies.margin import study as margin
from posttrain.studies.merging import study as merging
from posttrain.studies.own_samples import study as own_samples
from posttrain.studies.packing import rows
from posttrain.studies.packing import study as packing
from posttrain.studies.policy_training import study as policy_training
from posttrain.studies.preference_data import study as preference_data
from posttrain.studies.recipe import study as recipe
from posttrain.studies.reinforcement import study as reinforcement
from posttrain.studies.rounds import study as rounds
from posttrain.studies.tradeoff import study as tradeoff
from posttrain.studies.training_run import study as training_run

STUDIES: dict[str, Study] = {
    module.STUDY.name: module.STUDY
    for module in (
        preference_data, margin, rows, packing, growth, merging, edits, examples, tradeoff,
        recipe, best_of_n, choices, reinforcement, rounds, policy_training,
        own_samples, training_run,
    )
}  # fmt: skip
