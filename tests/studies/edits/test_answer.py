"""The answer about edits quotes its records and follows their verdicts."""

from dataclasses import replace

import pytest
from edits_synthetic import FEW, numbered, synthetic

from posttrain.data.preferences import PairKind
from posttrain.evidence.verdicts import with_interval
from posttrain.studies.edits import answer as edits_answer
from posttrain.studies.edits.claims import estimate, most_data


@pytest.fixture
def records():
    return [numbered(), numbered("seeda-full", FEW, start=7)]


def table_of(answer):
    """Cells of the table in an answer: by line, then by source."""
    rows = [line.strip("| ").split(" | ") for line in answer.splitlines() if line.startswith("|")]
    head = rows[0][-len(rows[2]) + 1 :]
    return {row[0]: dict(zip(head, row[1:], strict=True)) for row in rows[2:]}


def test_the_answer_quotes_the_records(records):
    answer = edits_answer.answer(records)
    table = table_of(answer)
    for record, name in zip(
        records, ("simulator (full training)", "seeda (top layers)"), strict=True
    ):
        where = most_data(record)
        gains, contrasts = record.tables["gains"], record.tables["contrasts"]
        for line, metric in (
            ("all pairs − edits ignored", PairKind.RATED),
            ("the same on edited > chosen", "edited > chosen"),
            ("the same, lean to the shorter", "leans shorter"),
        ):
            found = estimate(gains, arm="all pairs", metric=metric, **where)
            assert table[line][name] == with_interval(found)
        for line in ("all pairs - one more pair", "all pairs - two more pairs"):
            found = estimate(contrasts, contrast=line, **where)
            assert table[line][name] == with_interval(found)
        for line in ("Plackett-Luce - all pairs", "by prompt - by pair"):
            if record is records[0]:
                found = estimate(contrasts, contrast=line, **where)
                assert table[line][name] == with_interval(found)
            else:
                assert table[line][name] == "–"
    small = estimate(records[0].tables["gains"], arm="all pairs", size=100, share=1.0)
    large = estimate(records[0].tables["gains"], arm="all pairs", **most_data(records[0]))
    assert (
        f"On `simulator` (full training) all pairs gain {with_interval(small)} points at 100 "
        f"groups and {with_interval(large)} at 1,000." in answer
    )
    for question in ("How are edits used?", "Which objective?", "How much do edits add?", "When?"):
        assert f"**{question}**" in answer


def test_the_answer_follows_the_verdicts():
    near = synthetic((0.002, 0.001, 0.004), source="simulator")
    far = synthetic((0.05, 0.04, 0.06), source="simulator")
    wide = synthetic((0.0, -0.05, 0.05), source="simulator")
    worse = synthetic((-0.05, -0.06, -0.04), source="simulator")
    for record, words in (
        (near, ("alike within a point on", "chose: a gain on `simulator`")),
        (
            far,
            (
                "further apart than a point on",
                "chose: a gain on `simulator`",
                "they edit: a gain on",
            ),
        ),
        (
            wide,
            (
                "not told apart to within a point on",
                "chose: undecided on",
                "for each edit: undecided on",
            ),
        ),
        (
            worse,
            (
                "further apart than a point on",
                "chose: no gain of a point on",
                "edit: no gain of a point on",
            ),
        ),
    ):
        answer = edits_answer.answer([record])
        assert all(part in answer for part in words), words
    several = edits_answer.answer([replace(near, source="seeda"), wide])
    assert "chose: a gain on `seeda` (frozen features); undecided elsewhere" in several


def test_the_answer_compares_short_with_long_training_where_both_are_recorded():
    short = numbered()
    longer = numbered("simulator-longer", FEW, start=50)
    longer.settings.update(sizes=[1000], shares=[1.0], epochs=4)
    for name, table in longer.tables.items():
        if "size" in table:
            longer.tables[name] = table[(table["size"] == 1000) & (table["share"] == 1.0)]
    answer = edits_answer.answer([short, longer])
    gains = [
        estimate(record.tables["gains"], arm="all pairs", size=1000, share=1.0)
        for record in (short, longer)
    ]
    assert gains[0] != gains[1]
    assert (
        f"with 1,000 groups of `simulator`, all pairs gain {with_interval(gains[0])} points in a "
        f"short training and {with_interval(gains[1])} in one of 4 times as many steps." in answer
    )


def test_the_answer_names_the_sources_on_which_edits_teach_brevity():
    brief = synthetic(
        (0.0, -0.01, 0.01), cell=("gains", "all pairs", "leans shorter"),
        planted=(0.2, 0.15, 0.25), source="finegrained_rlhf",
    )  # fmt: skip
    plain = synthetic((0.0, -0.01, 0.01), source="seeda")
    assert "on `finegrained_rlhf` (frozen features) that is to prefer the shorter" in (
        edits_answer.answer([plain, brief])
    )
    assert "Nowhere do edits teach to prefer the shorter" in edits_answer.answer([plain])


def test_the_answer_needs_a_record_of_all_arms(records):
    with pytest.raises(ValueError, match="needs a record with all arms"):
        edits_answer.answer(records[1:])
