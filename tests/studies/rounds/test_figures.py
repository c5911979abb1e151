"""The figure of rounds draws gold of every recipe that it names."""

import itertools

import matplotlib
import numpy as np
import pandas as pd

from posttrain.evidence.records import Record
from posttrain.studies.rounds.keys import Arm, Measure

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from posttrain.studies.rounds.figures import ARMS, rounds


def test_gold_is_drawn_by_round_and_named_where_it_ends():
    rows = [
        (arm, number, measure, *(place + np.array([0, -0.1, 0.2])))
        for place, (arm, number, measure) in enumerate(itertools.product(Arm, range(3), Measure))
        if arm != Arm.FROZEN
    ]
    columns = ["arm", "round", "measure", "estimate", "low", "high"]
    levels = pd.DataFrame(rows, columns=columns)
    (axis,) = rounds(Record("rounds", "simulator", "quick", {}, {}, {"levels": levels})).axes
    shown = [arm for arm in ARMS if arm != Arm.FROZEN]
    assert [container.get_label() for container in axis.containers] == shown
    for container, name in zip(axis.containers, axis.texts, strict=True):
        arm = container.get_label()
        part = levels[(levels["arm"] == arm) & (levels["measure"] == Measure.GOLD)]
        line, _, (bars,) = container.lines
        np.testing.assert_allclose(line.get_xdata().astype(float), [0, 1, 2], atol=0.3)
        np.testing.assert_allclose(line.get_ydata().astype(float), part["estimate"])
        ends = [segment[:, 1] for segment in bars.get_segments()]
        np.testing.assert_allclose(ends, part[["low", "high"]])
        assert (name.get_text(), name.xy[1]) == (arm, part["estimate"].iloc[-1])
    plt.close("all")
