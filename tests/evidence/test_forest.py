"""The figure of the scoreboard: which claims have a line, and where."""

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from posttrain.evidence.claims import Claim, above, gain, no_worse, row, within
from posttrain.evidence.forest import forest
from posttrain.evidence.judging import judge
from posttrain.evidence.records import Record


def test_each_claim_about_an_effect_has_a_line_in_units_of_what_matters():
    table = pd.DataFrame([(0.02, 0.01, 0.03)], columns=["estimate", "low", "high"])
    record = Record("toys", "a", "real", {}, {"clusters": 100_000}, {"toys": table})
    rules = {
        "gain": gain(row("toys"), 0.01),
        "no worse": no_worse(row("toys"), 0.04),
        "alike": within(row("toys"), 0.1),
        "bound": above(row("toys"), 0.9),
        "share": gain(row("toys"), 0.05, over=0.5),
        "check": gain(row("toys"), 0.01),
    }
    claims = [
        Claim(
            key, "", key, "", "", "toys", rule,
            effect=0.03 if key == "gain" else None, check=key == "check",
        )
        for key, rule in rules.items()
    ]  # fmt: skip
    figure = forest([*judge(claims, [record]).values()])
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == ["gain", "no worse", "alike"]
    # An interval and a point a claim, the paper's effect for one, and the line at zero.
    drawn = [line.get_xdata() for line in axis.lines]
    assert len(drawn) == 3 * 2 + 1 + 1
    assert drawn[0] == pytest.approx([1.0, 3.0], abs=0.01)
    assert drawn[1] == pytest.approx([2.0])
    assert drawn[2] == pytest.approx([3.0])
    assert drawn[4] == pytest.approx([0.5])
    plt.close(figure)
