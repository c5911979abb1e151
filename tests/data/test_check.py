"""The summary of `posttrain data check`: its numbers."""

import json
from collections import Counter

import pytest

from posttrain.data.check import REPEATS, summarise, summarise_file
from posttrain.data.formats import BadFile
from posttrain.data.notes import Notes
from posttrain.data.preferences import BadRecord, Message, RankedGroup

GOOD = {"prompt": "Why?", "chosen": "good", "rejected": "bad"}
SHORT = (Message("user", "one two"),)


def make(chosen, rejected, *edited, prompt=SHORT, **fields):
    return RankedGroup("a", prompt, (*edited, chosen, rejected), **fields)


@pytest.fixture
def small():
    """The summary of a small file."""
    longer = (Message("system", "a b"), Message("user", "c d"))
    groups = [
        make("longer one", "short", strength=1, domain="safety", cluster_id="x"),
        make("same", "size", strength=4, domain="helpfulness", cluster_id="x"),
        make("short", "longer by far here", "best", prompt=longer, strength=4, domain="safety"),
        make("wins", "no", prompt=longer),
    ]
    return summarise(
        [*groups, BadRecord("wrong")], "small.jsonl", Notes(Counter({"votes": 4}))
    ).table


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_summary_of_a_small_file(small):
    assert small.index.tolist() == ["small.jsonl"]
    assert small.iloc[0].to_dict() == {
        "rows": 4,
        "groups": 2,
        "edited": 1,
        "strength_1": 1,
        "strength_2": 0,
        "strength_3": 0,
        "strength_4": 2,
        "strength_none": 1,
        "prompt_words": 3.0,
        "response_words": 1.0,
        "chosen_longer": 2.5 / 4,
        "refused": 1,
        "duplicates": 0,
        "duplicates_across": 0,
        "contradictions": 0,
        "contradictions_across": 0,
        "domains": "safety 2, helpfulness 1",
        "ignored_columns": "votes 4",
    }


def test_a_summary_has_its_domains_and_unused_columns_apart(tmp_path):
    votes = GOOD | {"votes": 3}
    path = write(tmp_path / "a.jsonl", votes | {"domain": "a\nb"}, votes, GOOD | {"x": 1})
    summary = summarise_file(path)
    assert summary.domains == {r"'a\nb'": 1}
    assert summary.columns == {"votes": 2, "x": 1}


def test_summary_of_nothing_accepted():
    table = summarise([BadFile("gone")], "gone.jsonl").table
    assert table["rows"].item() == 0
    assert table["refused"].item() == 1
    assert table[["prompt_words", "response_words", "chosen_longer"]].isna().all(axis=None)


def test_repeats_and_contradictions_are_counted_in_a_file_and_across_files(tmp_path):
    turned = GOOD | {"chosen": "bad", "rejected": "good"}
    first = write(tmp_path / "a.jsonl", GOOD, GOOD | {"chosen": " good\n"}, turned)
    second = write(tmp_path / "b.jsonl", GOOD | {"domain": "safety"}, GOOD, GOOD)
    earlier = set()
    tables = [summarise_file(path, earlier).table.iloc[0] for path in (first, second)]
    assert [[table[name] for name in REPEATS] for table in tables] == [
        [1, 0, 1, 0],
        # Judged for something else, the same pair is another; so is the other way round.
        [1, 1, 0, 2],
    ]


@pytest.mark.parametrize(
    ("first", "second", "duplicates", "contradictions"),
    [
        (("best", "good", "bad"), ("good", "best"), 0, 1),
        (("best", "good", "bad"), ("bad", "good"), 0, 1),
        (("best", "good", "bad"), ("good", "best", "bad"), 0, 1),
        (("best", "good", "bad"), ("bad", "good", "best"), 0, 1),
        (("best", "good", "bad"), ("best", "bad"), 1, 0),
        (("good", "bad"), ("best", "good", "bad"), 0, 0),
        (("a b", "a"), ("a", "a\n b "), 0, 1),
        (("a b", "a"), ("a  b", "a"), 1, 0),
        (("a b", "a  b"), ("a b", "a  b"), 1, 0),
    ],
)
def test_all_pairs_of_a_row_may_repeat_or_contradict(first, second, duplicates, contradictions):
    prompts = [(Message("user", text),) for text in ("one two", " one\n\ntwo")]
    groups = [RankedGroup("a", *both) for both in zip(prompts, (first, second), strict=True)]
    earlier = set()
    tables = [summarise(part, "a.jsonl", None, earlier).table for part in (groups[:1], groups[1:])]
    across = tables[1].iloc[0]
    within = summarise(groups, "a.jsonl").table.iloc[0]
    assert [within[name] for name in REPEATS] == [duplicates, 0, contradictions, 0]
    assert [across[name] for name in REPEATS] == [0, duplicates, 0, contradictions]
