"""Figures of the study of edits draw what records hold, and nothing else."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from edits_synthetic import numbered, synthetic

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from posttrain.evidence.claims import estimate
from posttrain.evidence.judging import judge
from posttrain.studies.edits import claims, figures
from posttrain.studies.edits.keys import ArmName


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def judgements():
    """Two claims about edits, each with other numbers for each of three records."""
    found = []
    for place, source in enumerate(("simulator", "simulator-longer", "seeda")):
        record = synthetic((0.0, 0.0, 0.0), source=source)
        for table in ("gains", "contrasts"):
            values = 0.02 * place + 1e-3 * np.arange(len(record.tables[table]))
            record.tables[table] = record.tables[table].assign(
                estimate=values, low=values - 0.01, high=values + 0.02
            )
        found.append(replace(record, data={"clusters": 100}))
    judged = judge([*claims.CLAIMS], found)
    return {key: judged[key] for key in ("edits-help", "worth-a-rating")}


def drawn_points(axis):
    """Place, ends in points, colour and filling of every point, in the order of drawing."""
    for container in axis.containers:
        line, _, (bars,) = container.lines
        ((x,), (y,)) = line.get_data()
        ends = bars.get_segments()[0][:, 0]
        yield round(y), [x, *ends], line.get_color(), line.get_markerfacecolor()


def test_judgements_by_source_show_every_record_and_all_that_count():
    judged = judgements()
    axis = figures.by_source(judged).axes[0]
    places = [label.get_text() for label in axis.get_yticklabels()]
    assert places == [
        "seeda\n(frozen features)", "simulator\n(full training)", "simulator\n(trained longer)",
        figures.TOGETHER,
    ]  # fmt: skip
    found = iter(drawn_points(axis))
    for (colour, _), one in zip(figures.STYLES, judged.values(), strict=True):
        shown = {voice.record.source: voice.shown for voice in one.voices}
        common = one.pooled.common
        expected = [
            shown["seeda"], shown["simulator"], shown["simulator-longer"],
            (common.estimate, *common.interval()),
        ]  # fmt: skip
        for place, values in enumerate(expected):
            row, ends, drawn, filling = next(found)
            assert (row, drawn) == (place, colour)
            np.testing.assert_allclose(ends, [100 * value for value in values])
            # The longer training has no vote.
            assert (filling == "white") == (place == 2)
    assert next(found, None) is None
    assert [text.get_text() for text in axis.get_legend().get_texts()] == list(judged)


def test_the_pairs_stand_above_the_same_points():
    judged = judgements()
    graph, axis = figures.one_pair_becomes_three(judged).axes
    assert [*drawn_points(axis)] == [*drawn_points(figures.by_source(judged).axes[0])]
    words = [text.get_text() for text in graph.texts]
    # One pair without the edit, three with it.
    assert words.count("rated") == words.count("new") == 2
    assert (words.count("edited"), words.count("chosen"), words.count("rejected")) == (1, 2, 2)


def test_gains_by_length_are_those_of_all_pairs_tuned_with_the_most_data():
    few = (ArmName.IGNORE, ArmName.ALL, ArmName.ONE_MORE)
    records = [numbered(), numbered("seeda", few, start=7)]
    axis = figures.gains_by_length(records).axes[0]
    found = iter(drawn_points(axis))
    for longer, (colour, _) in zip(("longer", "shorter"), figures.STYLES, strict=True):
        for place, record in enumerate((records[1], records[0])):
            expected = estimate(
                record.tables["gains"],
                arm=ArmName.ALL,
                size=1000,
                share=1.0,
                tuning="tuned",
                metric=f"chosen > rejected, winner {longer}",
            )
            at, ends, drawn, _ = next(found)
            assert (at, drawn) == (place, colour)
            np.testing.assert_allclose(ends, [100 * value for value in expected])
