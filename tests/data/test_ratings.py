"""Records of several responses with scores or ranks: the comparisons that are made of them."""

import itertools
import json
from fractions import Fraction

import pandas as pd
import pytest
from command_line import run
from hypothesis import given
from hypothesis import strategies as st

from posttrain.data import conversations, ratings
from posttrain.data.messages import BadRecord, Message
from posttrain.data.notes import Notes
from posttrain.data.preferences import RankedGroup
from posttrain.data.ratings import read_record
from posttrain.data.reading import iterate_groups, read_groups, write_groups
from posttrain.data.store import stored
from posttrain.errors import UserError

PROMPT = (Message("user", "2 + 2?"),)
RECORD = {"prompt": "2 + 2?", "responses": ["5", "4", "four", "22"], "scores": [1, 9, 9, 3.5]}
QUESTION = {"role": "user", "content": "2 + 2?"}


def assistant(text, **fields):
    return {"role": "assistant", "content": text, **fields}


def read(min_difference=0.0, **fields):
    """What RECORD, changed, gives: pairs by id, and notes."""
    notes = Notes()
    record = {name: value for name, value in (RECORD | fields).items() if value is not ...}
    groups = read_record(
        record, where="here", default_id="a", notes=notes, min_difference=min_difference
    )
    return {group.id: (group.chosen, group.rejected) for group in groups}, notes


def refused(**fields):
    with pytest.raises(BadRecord) as caught:
        read(**fields)
    return caught.value


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


PAIRS = {
    "a#2>1": ("4", "5"),
    "a#3>1": ("four", "5"),
    "a#4>1": ("22", "5"),
    "a#2>4": ("4", "22"),
    "a#3>4": ("four", "22"),
}


def test_each_two_responses_that_differ_are_a_group():
    pairs, notes = read(votes=3, domain=None)
    assert pairs == PAIRS
    assert notes == Notes(
        columns={"votes": 1},
        readings={ratings.READ: 1},
        comparisons={ratings.PAIRS: 5, ratings.TIES: 1},
    )


def test_groups_of_a_record_have_all_but_their_responses_in_common():
    record = RECORD | {"id": 7, "group": "sums", "domain": "helpfulness"}
    groups = read_record(record, where="here")
    assert groups[0] == RankedGroup(
        "7#2>1", PROMPT, ("4", "5"), cluster_id="sums", domain="helpfulness"
    )
    assert {group.cluster_id for group in groups} == {"sums"}
    own = {group.cluster_id for group in read_record(RECORD, where="here")}
    assert own == {RankedGroup("b", PROMPT, ("x", "y")).cluster_id}


@pytest.mark.parametrize(
    ("least", "left"),
    [(2.5, ["a#2>1", "a#3>1", "a#4>1", "a#2>4", "a#3>4"]), (6, ["a#2>1", "a#3>1"]), (8.5, [])],
)
def test_pairs_below_the_least_difference_are_counted(least, left):
    pairs, notes = read(min_difference=least)
    assert list(pairs) == left
    assert notes.comparisons[ratings.TOO_CLOSE] == 5 - len(left)
    assert notes.comparisons[ratings.TIES] == 1
    assert notes.readings.get(ratings.NO_PAIR, 0) == (not left)


def test_lower_ranks_are_better_and_may_be_whole_floats():
    assert read(scores=..., ranks=[3, 1, 1.0, 2])[0] == PAIRS
    assert list(read(scores=None, ranks=[3, 1, 1, 2], min_difference=2)[0]) == ["a#2>1", "a#3>1"]


def test_differences_are_those_of_the_numbers_as_written():
    # As binary fractions, 7.3 - 7.2 is less than 0.1.
    pairs, _ = read(0.1, responses=["x", "y", "z"], scores=[7.3, 7.2, 7.15])
    assert list(pairs) == ["a#1>2", "a#1>3"]


@pytest.mark.parametrize(
    ("scores", "pairs", "outcome"),
    [
        ([1, 9, 9, 3], ["a#2>1", "a#2>4", "a#4>1"], None),
        ([1, 9, 8, 3], ["a#2>1", "a#2>4", "a#4>1"], None),
        ([1, 9, 2, 3], ["a#2>1", "a#4>1"], ratings.UNDECIDED),
        ([1, 9, 3, 3], ["a#2>1", "a#4>1"], ratings.UNDECIDED),
        ([1, 1, 1, 1], [], ratings.TIES),
    ],
)
def test_a_response_that_occurs_twice_beats_another_if_both_its_scores_do(scores, pairs, outcome):
    found, notes = read(responses=["5", "4", " 4\n", "22"], scores=scores)
    assert sorted(found) == sorted(pairs)
    assert notes.readings[ratings.TWICE] == 1
    assert set(notes.comparisons) - {ratings.PAIRS} == ({outcome} if outcome else set())


numbers = st.integers(-3, 3) | st.integers(-1000, 1000).map(lambda number: number / 100)


@given(
    rated=st.lists(st.tuples(st.sampled_from("abcdefgh"), numbers), min_size=2, max_size=9),
    least=st.just(0) | numbers.map(abs),
)
def test_pairs_are_those_that_differ_enough_whichever_copies_are_compared(rated, least):
    texts, scores = zip(*rated, strict=True)
    pairs, notes = read(least, responses=list(texts), scores=list(scores))
    exact = {text: [Fraction(repr(score)) for one, score in rated if one == text] for text in texts}
    expected = {
        (better, worse)
        for better, worse in itertools.permutations(exact, 2)
        if all(
            first > second and first - second >= Fraction(repr(least))
            for first in exact[better]
            for second in exact[worse]
        )
    }
    assert set(pairs.values()) == expected
    assert len(pairs) == len(expected) == notes.comparisons[ratings.PAIRS]
    assert notes.comparisons.total() == len(exact) * (len(exact) - 1) / 2
    for name, (better, worse) in pairs.items():
        first, second = map(int, name.removeprefix("a#").split(">"))
        assert (texts[first - 1], texts[second - 1]) == (better, worse)


@pytest.mark.parametrize(
    "shape",
    [
        {"responses": [[assistant(text)] for text in RECORD["responses"]]},
        {"responses": [[QUESTION, assistant(text)] for text in RECORD["responses"]]},
        {
            "prompt": None,
            "responses": [[QUESTION, assistant(text)] for text in RECORD["responses"]],
        },
        {
            "prompt": ...,
            "responses": [
                f"\n\nHuman: 2 + 2?\n\nAssistant: {text}" for text in RECORD["responses"]
            ],
        },
        {"prompt": [QUESTION]},
        {"prompt": "\n\nHuman: 2 + 2?\n\nAssistant: "},
        {"responses": [json.dumps([assistant(text)]) for text in RECORD["responses"]]},
    ],
)
def test_responses_have_all_shapes_that_chosen_may_have(shape):
    record = {name: value for name, value in (RECORD | shape).items() if value is not ...}
    groups = read_record(record, where="here", default_id="a")
    assert {group.id: (group.chosen, group.rejected) for group in groups} == PAIRS
    assert {group.prompt for group in groups} == {PROMPT}


def test_what_all_responses_repeat_is_removed_and_what_some_repeat_is_not():
    before = "\n\nHuman: 2 + 2?\n\nAssistant: "
    responses = [before + "4", before + "5", before + "6"]
    some, notes = read(responses=[*responses, "7"], scores=[4, 3, 2, 1])
    assert some["a#1>4"] == (responses[0], "7")
    assert conversations.REMOVED not in notes.readings
    every, notes = read(responses=responses, scores=[4, 3, 2])
    assert every["a#1>3"] == ("4", "6")
    assert notes.readings[conversations.REMOVED] == 1


ULTRA = {
    "source": "sharegpt",
    "instruction": "2 + 2?",
    "models": ["m", "n"],
    "completions": [
        {"model": "m", "response": "4", "overall_score": 8.5, "fine-grained_score": 4.75},
        {"model": "n", "response": "5", "overall_score": 2.0, "fine-grained_score": 1.0},
    ],
}
NECTAR = {
    "prompt": "\n\nHuman: 2 + 2?\n\nAssistant: ",
    "answers": [
        {"answer": "4", "model": "m", "rank": 1.0},
        {"answer": "5", "model": "n", "rank": 2.0},
    ],
    "turns": 1,
}


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        (ULTRA, {"source", "models", "completions.model", "completions.fine-grained_score"}),
        (NECTAR, {"answers.model", "turns"}),
    ],
)
def test_published_nested_forms(record, columns):
    notes = Notes()
    groups = read_record(record, where="here", default_id="a", notes=notes)
    assert groups == [RankedGroup("a#1>2", PROMPT, ("4", "5"))]
    assert notes.columns == dict.fromkeys(columns, 1)


def test_a_pair_keeps_its_unused_columns():
    pair = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}
    notes = Notes()
    beside = {"responses": None, "scores": [1], "answers": NECTAR["answers"], "ranks": None}
    (group,) = read_record(pair | beside, where="here", notes=notes)
    assert group == RankedGroup("here", PROMPT, ("4", "5"))
    assert notes == Notes(columns={"scores": 1, "answers": 1})


@pytest.mark.parametrize(
    ("fields", "field", "problem"),
    [
        ({"chosen": "4", "rejected": "5"}, "responses", "also has 'chosen'"),
        ({"edited": "4"}, "edited", "about one pair"),
        ({"strength": 3}, "strength", "about one pair"),
        ({"margin": 1.0}, "margin", "about one pair"),
        ({"answers": NECTAR["answers"]}, "answers", "also has 'responses'"),
        ({"scores": ...}, "scores", "missing"),
        ({"responses": ..., "candidates": ["5", "4"]}, "responses", "it is missing"),
        ({"ranks": [1, 2, 3, 4]}, "scores", "also has 'ranks'"),
        ({"scores": [1, 2, 3]}, "scores", "3 numbers for 4 responses"),
        ({"scores": 3}, "scores", "must be a list, not a number"),
        ({"scores": [1, 2, "3", 4]}, "scores[2]", "must be a number, not text"),
        ({"scores": [1, 2, True, 4]}, "scores[2]", "must be a number, not a truth value"),
        ({"scores": [1, None, 3, 4]}, "scores[1]", "missing"),
        ({"scores": [1, 2, 3, float("nan")]}, "scores[3]", "not a finite number"),
        ({"scores": [1, 2, 3, 10**400]}, "scores[3]", "not a finite number"),
        ({"scores": ..., "ranks": [0, 1, 2, 3]}, "ranks[0]", "whole number from 1"),
        ({"scores": ..., "ranks": [1, 1.5, 2, 3]}, "ranks[1]", "whole number from 1"),
        ({"responses": "['5', '4']"}, "responses", "must be a list, not text"),
        ({"responses": ["5"], "scores": [1]}, "responses", "needs at least two"),
        ({"responses": ["5", "4", 22, "x"]}, "responses[2]", "must be text, not a number"),
        ({"responses": ["5", " ", "22", "x"]}, "responses[1]", "empty"),
        ({"responses": ["5", "4", [QUESTION], "x"]}, "responses[2]", "one assistant message"),
        (
            {"prompt": None, "responses": [[QUESTION, assistant("5")], [assistant("4")]] * 2},
            "responses[1]",
            "no prompt",
        ),
        ({"prompt": None}, "responses[0]", "without a prompt"),
        ({"id": ""}, "id", "empty"),
        ({"group": ""}, "group", "empty"),
        ({"domain": 3}, "domain", "must be text"),
    ],
)
def test_bad_records_name_field_and_remedy(fields, field, problem):
    error = refused(**fields)
    assert error.field == field
    assert problem in error.problem
    assert error.remedy
    assert error.where == "here"


@pytest.mark.parametrize(
    ("record", "changed", "field"),
    [
        (ULTRA, {"overall_score": "8"}, "completions[1].overall_score"),
        (ULTRA, {"response": None}, "completions[1].response"),
        (NECTAR, {"rank": 0}, "answers[1].rank"),
    ],
)
def test_bad_nested_records_name_field(record, changed, field):
    (column,) = record.keys() & ratings.NESTED.keys()
    first, second = record[column]
    with pytest.raises(BadRecord) as caught:
        read_record(record | {column: [first, second | changed]}, where="here")
    assert caught.value.field == field
    with pytest.raises(BadRecord, match="'responses', a list of texts"):
        read_record(record | {column: [{"text": "4"}, second]}, where="here")
    with pytest.raises(BadRecord, match="rename"):
        read_record(record | {column: ["4", "5"]}, where="here")


@pytest.mark.parametrize("least", [-1, float("nan"), float("inf")])
def test_a_least_difference_is_a_number_of_at_least_0(tmp_path, least):
    path = write(tmp_path / "mine.jsonl", RECORD)
    with pytest.raises(UserError, match="min_difference must be a number of at least 0"):
        read_groups(path, min_difference=least)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    start=st.sampled_from([RECORD, ULTRA, NECTAR]),
    changes=st.dictionaries(
        st.sampled_from(["prompt", "id", "group", *ratings.LIST_COLUMNS]),
        anything | st.lists(anything, min_size=4, max_size=4),
        max_size=2,
    ),
)
def test_whatever_stands_in_a_record_it_is_read_or_refused(start, changes):
    error = None
    try:
        groups = read_record(start | changes, where="here")
    except BadRecord as caught:
        error = caught
    if error is None:
        assert all(len(group.responses) == 2 for group in groups)
    else:
        assert error.field
        assert error.remedy


# Files


@pytest.mark.parametrize("pairs_too", [False, True])
def test_parquet_gives_the_groups_of_lines(tmp_path, pairs_too):
    pair = {"prompt": "1 + 1?", "chosen": "2", "rejected": "1"}
    records = [RECORD, RECORD | {"scores": [4.0, 3, 2, 1]}, *([pair] if pairs_too else [])]
    lines = read_groups(write(tmp_path / "mine.jsonl", *records), min_difference=2.5)
    pd.DataFrame(records).to_parquet(tmp_path / "mine.parquet")
    table = read_groups(tmp_path / "mine.parquet", min_difference=2.5)
    assert table.groups == lines.groups
    assert table.notes == lines.notes
    assert len(lines.groups) == 6 + pairs_too


def test_parquet_of_objects(tmp_path):
    for name, record in {"ultra": ULTRA, "nectar": NECTAR}.items():
        pd.DataFrame([record]).to_parquet(tmp_path / f"{name}.parquet")
        result = read_groups(tmp_path / f"{name}.parquet")
        assert result.groups == [RankedGroup(f"{name}-1#1>2", PROMPT, ("4", "5"))]
        lines = read_groups(write(tmp_path / f"{name}.jsonl", record))
        assert result.notes == lines.notes


def test_a_table_of_cells_says_that_it_cannot_hold_lists(tmp_path):
    path = tmp_path / "mine.csv"
    pd.DataFrame([RECORD]).to_csv(path, index=False)
    with pytest.raises(BadRecord, match=r"mine\.csv: column responses is a list.*\.jsonl"):
        read_groups(path)


def test_written_pairs_are_read_back(tmp_path):
    groups = read_groups(write(tmp_path / "mine.jsonl", RECORD, NECTAR)).groups
    for suffix in (".jsonl", ".parquet"):
        write_groups(tmp_path / f"pairs{suffix}", groups)
        assert list(iterate_groups(tmp_path / f"pairs{suffix}")) == groups


def test_bad_records_are_skipped_and_an_id_stands_once(tmp_path):
    named = RECORD | {"id": "a"}
    turned = named | {"scores": [9, 1, 1, 4]}
    bad = RECORD | {"scores": ["1", "2", "3", "4"]}
    pair = {"prompt": "1 + 1?", "chosen": "2", "rejected": "1", "id": "a#2>1"}
    path = write(tmp_path / "mine.jsonl", named, bad, turned, pair, RECORD)
    result = read_groups(path, skip_bad=True)
    assert [(error.line, error.field) for error in result.refused] == [
        (2, "scores[0]"),
        (3, "id"),
        (4, "id"),
    ]
    assert [group.id for group in result.groups] == [
        name.replace("a#", f"{stem}#") for stem in ("a", "mine-5") for name in sorted_ids()
    ]
    with pytest.raises(BadRecord, match=r"mine\.jsonl, line 2, field 'scores\[0\]'"):
        read_groups(path)


def sorted_ids():
    return [group.id for group in read_record(RECORD, where="here", default_id="a")]


def test_stored_groups_depend_on_the_least_difference(tmp_path, monkeypatch):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "cache"))
    path = str(write(tmp_path / "mine.jsonl", RECORD))
    assert [len(stored([path], min_difference=least).rows) for least in (0, 3, 6)] == [5, 4, 2]
    assert stored([path], min_difference=3.0).notes.comparisons == {
        ratings.PAIRS: 4,
        ratings.TIES: 1,
        ratings.TOO_CLOSE: 1,
    }
    with pytest.raises(UserError, match="closer than min_difference 5"):
        stored([path], min_difference=100)


def test_the_command_line_checks_such_a_file(tmp_path, capsys):
    path = write(tmp_path / "mine.jsonl", RECORD, RECORD | {"prompt": "3 + 1?"})
    assert run("data", "check", path, "--min_difference", 3) == 0
    shown = capsys.readouterr()
    assert [line.split()[-1] for line in shown.out.splitlines()[1:3]] == ["8", "2"]
    assert f"{ratings.READ}: 2" in shown.err
    assert f"{ratings.PAIRS} 8" in shown.err
    assert run("data", "check", path, "--min_difference", -1) == 1
    assert "min_difference" in capsys.readouterr().err
    assert run("data", "check", write(tmp_path / "bad.jsonl", RECORD | {"scores": [1]})) == 1
    assert "line 1, field 'scores'" in capsys.readouterr().err
