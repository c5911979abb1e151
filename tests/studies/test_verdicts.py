"""The committed records say what they said before claims and keys were written anew.

Of a record that is made anew on purpose remove the hash in ``verdicts_before.json``; its evidence
is no longer compared then. New claims and records need nothing.
"""

import hashlib
import json
import math
import re
from pathlib import Path

import pytest

from posttrain import studies
from posttrain.evidence import records, verdicts

RESULTS = Path(__file__).parents[2] / "book" / "results"
BEFORE = json.loads((Path(__file__).parent / "verdicts_before.json").read_text(encoding="utf-8"))
SUBJECTS = {
    "margin": "the margin",
    "packing": "packing",
    "edits": "edited responses",
    "tradeoff": "helpfulness and safety",
    "training": "training in full",
}


@pytest.fixture(scope="module")
def recorded():
    """The records of that time that are still there."""
    return [records.load(RESULTS / f"{name}.json") for name in BEFORE["numbers"]]


def numbers(value):
    """All that is no text, in order."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers(part)
    elif not isinstance(value, str):
        yield value


@pytest.mark.parametrize("name", BEFORE["numbers"])
def test_no_number_of_a_record_has_changed(name):
    content = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    found = hashlib.sha256(json.dumps(list(numbers(content))).encode()).hexdigest()
    assert found[:16] == BEFORE["numbers"][name]


def plain(values):
    """Nine digits, and a word for what is no number."""
    return [float(f"{x:.9g}") if math.isfinite(x) else str(x) for x in values]


@pytest.mark.parametrize("study", BEFORE["studies"])
def test_every_verdict_is_what_it_was(study, recorded):
    claims = {claim.statement: claim for claim in studies.SUBJECTS[SUBJECTS[study]]}
    for old in BEFORE["studies"][study]["claims"]:
        claim = claims[old["statement"]]
        if not set(_records(old)) <= set(BEFORE["numbers"]):
            continue
        status, evidence = claim.judge(recorded)
        found = [
            {
                "record": item.record,
                "status": item.status,
                "interval": plain((item.estimate, item.low, item.high)),
                "shown": plain(item.shown),
                "smallest": plain([item.smallest]),
            }
            for item in evidence
        ]
        # Records of all studies lie in one list here.
        order = [item["record"] for item in old["evidence"]]
        assert sorted(found, key=lambda item: order.index(item["record"])) == old["evidence"]
        assert status == old["verdict"], claim.key


def _records(claim):
    return [item["record"] for item in claim["evidence"]]


def cells(rows):
    """What stands behind the first column, without the titles of sources."""
    return [[re.sub(r"[^;:]+: ", "", str(cell)) for cell in row[1:]] for row in rows]


@pytest.mark.parametrize("study", BEFORE["studies"])
def test_every_table_of_the_scoreboard_is_what_it_was(study, recorded):
    before = BEFORE["studies"][study]
    known = {claim["statement"] for claim in before["claims"]}
    claims = [claim for claim in studies.SUBJECTS[SUBJECTS[study]] if claim.statement in known]
    if not {name for claim in before["claims"] for name in _records(claim)} <= set(
        BEFORE["numbers"]
    ):
        pytest.skip("some of its records have been made anew")
    judging = [record for record in recorded if record.study in {claim.study for claim in claims}]

    def rows(table):
        return table.reset_index().to_numpy().tolist()

    tables = [rows(table) for table in verdicts.verdict_tables(claims, judging)]
    assert [*map(cells, tables)] == [*map(cells, before["tables"])]
    assert cells(rows(verdicts.verdicts_by_status(claims, judging))) == cells(before["by_status"])
    smallest = verdicts.quantities(claims, judging)["smallest effect that matters"]
    assert smallest.tolist() == [row[-1] for row in before["quantities"]]
    assert verdicts.summary(claims, judging, study) == before["summary"]
