"""The summary of `posttrain data check`: its numbers, its text, its exit code."""

import gzip
import json
import weakref
from collections import Counter

import pytest

from posttrain.data import reading
from posttrain.data.check import REPEATS, check, format_report, summarise, summarise_file
from posttrain.data.formats import BadFile
from posttrain.data.notes import Notes
from posttrain.data.preferences import BadRecord, Message, RankedGroup

GOOD = {"prompt": "Why?", "chosen": "good", "rejected": "bad"}
BAD = GOOD | {"strength": 7}


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


def test_report_has_one_line_per_file(small):
    lines = format_report(small).splitlines()
    assert len(lines) == 2
    assert "strength 1/2/3/4/none" in lines[0]
    assert lines[1].split()[:8] == ["small.jsonl", "4", "2", "1", "1/0/0/2/1", "3", "1", "0.62"]


def test_summary_of_nothing_accepted():
    table = summarise([BadFile("gone")], "gone.jsonl").table
    assert table["rows"].item() == 0
    assert table["refused"].item() == 1
    assert table[["prompt_words", "response_words", "chosen_longer"]].isna().all(axis=None)
    assert "nan" in format_report(table)


def test_check_of_good_files(tmp_path, capsys):
    first = write(tmp_path / "a.jsonl", GOOD)
    second = write(tmp_path / "b.jsonl", GOOD, GOOD)
    assert check([first, str(second)]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 3
    assert printed.err == ""
    assert check(first) == 0


def test_check_lists_all_bad_records(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", GOOD, BAD, GOOD, BAD)
    assert check(path) == 1
    printed = capsys.readouterr()
    errors = printed.err.splitlines()
    assert [error.split(":")[0] for error in errors] == [
        f"{path}, line 2, field 'strength'",
        f"{path}, line 4, field 'strength'",
    ]
    assert check(path, skip_bad=True) == 0
    assert capsys.readouterr() == printed


def test_check_stops_listing_after_twenty(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", GOOD, *[BAD] * 1022)
    assert check(path) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 21
    assert errors[-1] == f"{path}: 1,002 more refused records not listed"


def test_check_never_excuses_a_file_cut_short(tmp_path, capsys):
    path = tmp_path / "a.jsonl.gz"
    path.write_text("not compressed")
    assert check([path, write(tmp_path / "b.jsonl", GOOD)], skip_bad=True) == 1
    printed = capsys.readouterr()
    assert "invalid gzip data" in printed.err
    assert len(printed.out.splitlines()) == 3


def test_check_names_a_file_cut_short_however_many_records_are_bad(tmp_path, capsys):
    path = tmp_path / "a.jsonl.gz"
    whole = gzip.compress("".join(f"{json.dumps(BAD)}\n" for _ in range(2000)).encode())
    path.write_bytes(whole[:-8])
    assert check(path, skip_bad=True) == 1
    errors = capsys.readouterr().err.splitlines()
    assert "the gzip data end early" in errors[0]
    assert len(errors) == 21
    assert errors[-1] == f"{path}: 1,981 more refused records not listed"


def test_check_keeps_no_record_in_memory(tmp_path, monkeypatch, capsys):
    alive, most = weakref.WeakSet(), []
    scan = reading.scan

    def watched(*arguments):
        for item in scan(*arguments):
            alive.add(item)
            most.append(len(alive))
            yield item

    monkeypatch.setattr(reading, "scan", watched)
    path = write(tmp_path / "a.jsonl", *[GOOD | {"group": f"g{k}"} for k in range(50)], *[BAD] * 50)
    assert check(path) == 1
    assert len(most) == 100
    # One at a time, the next before the last is gone, and the twenty bad ones that are listed.
    assert max(most[:50]) <= 3
    assert max(most) <= 23


def test_repeats_and_contradictions_are_counted_in_a_file_and_across_files(tmp_path, capsys):
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
    assert check([first, second]) == 0
    printed = capsys.readouterr().out
    assert "1 (0)" in printed
    assert "2 (1)" in printed
    assert "2 (2)" in printed


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


def test_what_was_read_otherwise_goes_to_standard_error_with_its_count(tmp_path, capsys):
    called = [{"role": "assistant", "content": "good", "tool_calls": [1]}]
    transcript = {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": "a", "rejected": "b"}
    path = write(tmp_path / "a.jsonl", GOOD | {"chosen": called, "x": 1}, transcript, transcript)
    assert check(path) == 0
    printed = capsys.readouterr()
    assert "x 1" in printed.out
    fields, turns = printed.err.splitlines()
    assert fields == f"{path}: message fields that are not used: tool_calls 1"
    assert "prompt" in turns
    assert turns.endswith(": 2")
