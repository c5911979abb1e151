"""The study of edited responses on human data: linear heads on frozen features.

Every group is tested once: folds are drawn by group, and each fold's heads never see its groups.
Inside a fold's training groups, sizes, shares and arms are those of :mod:`.edits`, and the penalty
is tuned for each arm by an inner cross-validation on chosen > rejected. A fit is convex and reaches
its optimum, so arms differ in what they train on and not in how long.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import GroupKFold
from torch import Tensor

from posttrain.preferences import folds
from posttrain.probe import FeatureSettings, Pooling, features
from posttrain.settings import setting
from posttrain.studies.edits_data import Chosen, EditGroups, choose, training_groups
from posttrain.studies.edits_outcome import ARMS, Arm, Cell
from posttrain.studies.heads import tuned_heads

#: A pair of responses by their places among all responses of the data.
Places = tuple[int, int]


@dataclass(frozen=True)
class HeadSettings:
    """What heads have that full training has not.

    Attributes:
        folds: Outer folds, by group.
        inner_folds: Folds inside the training groups, for tuning.
        penalties: L2 penalties to choose from.
        layer: How many layers of the backbone to run.
        pooling: How hidden states become one vector.
    """

    folds: int = setting(8, "Outer folds, by group.")
    inner_folds: int = setting(3, "Folds inside the training groups, for tuning.")
    penalties: list[float] = setting(
        [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0], "L2 penalties to choose from."
    )
    layer: int = setting(24, "How many layers of the backbone to run.")
    pooling: Pooling = setting("mean", "How hidden states become one vector.")
