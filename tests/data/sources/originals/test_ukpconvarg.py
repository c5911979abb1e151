"""UKPConvArg1: votes to strength, what is dropped, and errors that name the place."""

import gzip
import json
import os
from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from posttrain.data.sources.originals.ukpconvarg import convert


def pair(first, second, votes, title="Cats or dogs?", stance="Cats", other_stance=None):
    assignments = "".join(
        f"<mTurkAssignment><value>{vote}</value></mTurkAssignment>" for vote in votes.split()
    )
    return (
        "<annotatedArgumentPair><id>one_two</id>"
        f"<arg1><stance>{stance}</stance><text>{escape(first)}</text></arg1>"
        f"<arg2><stance>{other_stance or stance}</stance><text>{escape(second)}</text></arg2>"
        f"<debateMetaData><title>{title}</title></debateMetaData>"
        f"<mTurkAssignments>{assignments}</mTurkAssignments></annotatedArgumentPair>"
    )


def write(folder, name, *pairs):
    (folder / name).write_text(f"<list>{''.join(pairs)}</list>", encoding="utf-8")


def test_records_in_full(tmp_path):
    write(tmp_path, "b.xml", pair("Dogs guard.", "Dogs & kids.", "a2 a2 a2 a2 a2", stance="Dogs"))
    write(tmp_path, "a.xml", pair("Cats purr.", "Cats are clean.", "a1 a1 a2 equal a1"))
    assert [list(record.items()) for record in convert(tmp_path)] == [
        [
            ("id", "ukpconvarg-00000"),
            ("prompt", "Cats or dogs? Argue for the position: Cats"),
            ("chosen", "Cats purr."),
            ("rejected", "Cats are clean."),
            ("edited", None),
            ("strength", 2),
            ("group", "Cats or dogs?"),
            ("vote_margin", 2),
        ],
        [
            ("id", "ukpconvarg-00001"),
            ("prompt", "Cats or dogs? Argue for the position: Dogs"),
            ("chosen", "Dogs & kids."),
            ("rejected", "Dogs guard."),
            ("edited", None),
            ("strength", 4),
            ("group", "Cats or dogs?"),
            ("vote_margin", 5),
        ],
    ]


@pytest.mark.parametrize(
    ("votes", "strength"),
    [
        ("a1 a1 a1 a2 a2", 1),
        ("a1 a1 equal equal equal", 2),
        ("a1 a1 a1 a1 a2", 3),
        ("a1 a1 a1 a1 equal", 4),
        ("a1 a1 a1 a1 a1", 4),
    ],
)
def test_strength_is_the_vote_margin_capped_at_four(tmp_path, votes, strength):
    write(tmp_path, "a.xml", pair("Yes.", "No.", votes))
    assert [record["strength"] for record in convert(tmp_path)] == [strength]


def test_dropped_pairs_are_counted_and_numbering_shows_the_gaps(tmp_path):
    write(
        tmp_path,
        "a.xml",
        pair("A", "B", "a1 a2 equal equal equal"),
        pair("A", "B", "a1 a1 a1 a1 a1"),
        pair("A", "A", "a1 a1 a1 a2 a2"),
        pair("B", "A", "a2 a2 a2 a2 a2"),
        pair("B", "A", "a1 a1 a1 a1 a1"),
        pair(" ", "A", "a2 a2 a2 a2 a2"),
        pair("A", "B", "a1 a1 a1 a1 a1", stance="Dogs"),
    )
    dropped = Counter()
    records = list(convert(tmp_path, dropped))
    assert [(record["id"], record["chosen"]) for record in records] == [
        ("ukpconvarg-00000", "A"),
        ("ukpconvarg-00003", "B"),
        ("ukpconvarg-00005", "A"),
    ]
    assert dropped == {
        "tied votes": 1,
        "identical arguments": 1,
        "repeated pair": 1,
        "empty argument": 1,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<list><annotatedArgumentPair></list>", r"a\.xml, line 1, column \d+: not well-formed"),
        ("<list/>", "holds no 'annotatedArgumentPair'"),
        (f"<list>{pair('A', 'B', '')}</list>", r"pair 1 \(one_two\): field 'mTurkAssignments'"),
        (f"<list>{pair('A', 'B', 'a1 a3')}</list>", "field 'value' must be .*, found 'a3'"),
        (
            f"<list>{pair('A', 'B', 'a1').replace('title>', 'name>')}</list>",
            "field 'debateMetaData/title' is missing. Clone https",
        ),
        (
            f"<list>{pair('A', 'B', 'a1', other_stance='Dogs')}</list>",
            "field 'stance' differs",
        ),
    ],
)
def test_malformed_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.xml").write_text(content)
    with pytest.raises(ValueError, match=message):
        list(convert(tmp_path))


@pytest.mark.skipif("POSTTRAIN_DATA" not in os.environ, reason="needs POSTTRAIN_DATA")
def test_public_original_gives_the_reference():
    data = Path(os.environ["POSTTRAIN_DATA"])
    with gzip.open(data / "ukpconvarg.jsonl.gz", "rt", encoding="utf-8") as lines:
        reference = [json.loads(line) for line in lines]
    dropped = Counter()
    records = list(convert(data / "raw" / "ukpconvarg1_full_xml.tar.xz", dropped))
    assert list(map(list, records)) == list(map(list, reference))
    assert records == reference
    assert dropped == {"tied votes": 1704, "repeated pair": 305, "identical arguments": 4}
