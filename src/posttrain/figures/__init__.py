"""One style, and one function per kind of figure.

Every function takes tidy tables (as in run records), returns a matplotlib figure, and draws nothing
that is not in them. Intervals are drawn wherever the table has them.
"""

from posttrain.figures.data import annotators
from posttrain.figures.edits import accuracy_by_cost, edit_gains, edit_gains_by_size
from posttrain.figures.margin import (
    accuracy_by_strength,
    gain_by_hyperparameter,
    gains_by_size,
    margin_tables,
    optimal_differences,
    reliability_diagram,
    score_distributions,
)
from posttrain.figures.packing import (
    accuracy_matrix,
    distance_by_slot,
    masks,
    order_effect,
    savings,
)
from posttrain.figures.style import use_style
from posttrain.figures.tradeoff import accuracy_front, choices, refusals_by_mix
from posttrain.figures.training import accuracy_by_scorer, learning_curve

__all__ = [
    "accuracy_by_cost",
    "accuracy_by_scorer",
    "accuracy_by_strength",
    "accuracy_front",
    "accuracy_matrix",
    "annotators",
    "choices",
    "distance_by_slot",
    "edit_gains",
    "edit_gains_by_size",
    "gain_by_hyperparameter",
    "gains_by_size",
    "learning_curve",
    "margin_tables",
    "masks",
    "optimal_differences",
    "order_effect",
    "refusals_by_mix",
    "reliability_diagram",
    "savings",
    "score_distributions",
    "use_style",
]
