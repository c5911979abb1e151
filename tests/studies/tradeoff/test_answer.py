"""The answer about helpfulness and safety quotes its records and follows their verdict."""

import pytest
from tradeoff_synthetic import synthetic

from posttrain.evidence.verdicts import with_interval
from posttrain.studies.tradeoff.answer import ADVICE, COMBINING, answer
from posttrain.studies.tradeoff.keys import ArmName
from posttrain.studies.tradeoff.outcome import ARMS

HUMAN_ARMS = tuple(arm for arm in ARMS if arm != ArmName.AUXILIARY)


@pytest.fixture
def records():
    # Not in the order in which readers see them.
    return [synthetic(source="human", arms=HUMAN_ARMS), synthetic()]


def value(record, table, **where):
    found = record.tables[table]
    for column, wanted in where.items():
        found = found[found[column] == wanted]
    return tuple(found[["estimate", "low", "high"]].to_numpy(dtype=float)[0].tolist())


def test_the_answer_quotes_the_records(records):
    found = answer(records)
    human, simulated = records
    for record, name in (
        (simulated, "the simulator"), (human, "human data"),
    ):  # fmt: skip
        gap = value(
            record, "differences", contrast="joint - own specialist", test="both", tuning="tuned",
            metric="accuracy",
        )  # fmt: skip
        assert f"{with_interval(gap)} points on {name}" in found
        for arm, kind in ((ArmName.HELPFUL, "unsafe"), (ArmName.SAFE, "lookalike")):
            share = value(record, "conflicts", arm=arm, kind=kind)
            assert f"{with_interval(share, sign=False, digits=0)} % ({name})" in found
        metric = "recovered 2" if record is simulated else "errors"
        for where in (
            {"team": "specialists", "system": "sum", "parameter": 2.0},
            {"team": "specialists", "system": "switch", "parameter": 0.15},
            {"team": "one model", "system": ArmName.JOINT},
        ):
            share = value(record, "choices", metric=metric, **where)
            assert f"{with_interval(share, sign=False, digits=0)} %" in found
    assert "a random choice among 8 responses" in found
    chance = value(human, "choices", team="nobody", system="random", metric="errors")[0]
    assert f"chance in {100 * chance:.0f} %" in found
    assert found.index("on the simulator") < found.index("on human data")


def test_that_models_refuse_is_said_only_where_they_choose_worse_than_chance():
    said = "models refuse what is harmless too"
    joint = {"team": "one model", "system": ArmName.JOINT, "metric": "errors"}
    for errors, expected in (((0.99, 0.98, 1.0), True), ((0.01, 0.0, 0.02), False)):
        record = synthetic(source="human", arms=HUMAN_ARMS, cell=("choices", joint), planted=errors)
        assert (said in answer([record])) == expected


SUM = {"team": "specialists", "system": "sum", "parameter": 2.0}
SWITCH = {"team": "specialists", "system": "switch", "parameter": 0.15}
TOLD = {"team": "specialists", "system": "switch, unsafe prompts flagged", "parameter": 0.15}
ONE = {"team": "one model", "system": ArmName.JOINT}


@pytest.mark.parametrize(
    ("source", "table", "where", "words"),
    [
        ("simulator", "choices", SUM | {"metric": "recovered 2"}, "calibrated scores {} %"),
        ("simulator", "choices", SWITCH | {"metric": "recovered 2"}, "switch at 0.15 {} %"),
        ("simulator", "choices", ONE | {"metric": "recovered 2"}, "model of all data covers {} %"),
        ("human", "choices", SUM | {"metric": "errors"}, "the sum in {} %"),
        ("human", "choices", SWITCH | {"metric": "errors"}, "the switch in {} %"),
        ("human", "choices", TOLD | {"metric": "errors"}, "the switch errs in {} %"),
        ("human", "choices", ONE | {"metric": "errors"}, "all data chooses wrongly in {} %"),
        (
            "human", "conflicts", {"arm": ArmName.HELPFUL, "kind": "unsafe"},
            "unsafe request above an answer in {} %",
        ),
        (
            "human", "conflicts", {"arm": ArmName.SAFE, "kind": "lookalike"},
            "looks unsafe above a refusal in {} %",
        ),
    ],
)  # fmt: skip
def test_every_number_is_that_of_its_own_cell(source, table, where, words):
    record = synthetic(
        (0.5, 0.4, 0.6), cell=(table, where), planted=(0.11, 0.1, 0.12), source=source
    )
    assert words.format("11 [10,\u00a012]") in answer([record])
    assert answer([record]).count("11 [10,\u00a012]") == 1


def recommending(gap):
    """A record in which two models choose better by ``gap`` than one."""
    cell = ("advantages", {"team": "one model", "system": ArmName.JOINT, "metric": "recovered 2"})
    return synthetic((0.5, 0.4, 0.6), cell=cell, planted=gap)


@pytest.mark.parametrize(
    ("gap", "status"),
    [
        ((0.1, 0.05, 0.2), "supported"),
        ((-0.1, -0.2, -0.05), "not supported"),
        ((0.0, -0.1, 0.1), "inconclusive"),
    ],
)
def test_the_first_line_is_the_advice_that_the_verdict_gives(gap, status):
    found = answer([recommending(gap)])
    assert found.startswith(f"**{ADVICE[status]} {COMBINING}**")
    assert len(set(ADVICE.values())) == 3


def test_the_answer_needs_records_with_the_joint_model():
    with pytest.raises(ValueError, match="needs a record of the study of helpfulness and safety"):
        answer([])
    with pytest.raises(ValueError, match="tradeoff-human: the answer needs the arm 'joint, all"):
        answer([synthetic(), synthetic(source="human", arms=(ArmName.HELPFUL, ArmName.SAFE))])
