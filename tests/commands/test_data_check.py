"""What `posttrain data check` shows of files: a table, bad records, notes, the exit code."""

import gzip
import json
import weakref
from pathlib import Path

from posttrain.commands import data_check
from posttrain.commands.data_check import check
from posttrain.data import reading

GOOD = {"prompt": "Why?", "chosen": "good", "rejected": "bad"}
BAD = GOOD | {"strength": 7}


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def numbers(out, files=1):
    """The last words of each line of a table but its head."""
    lines = out.replace(" %", "%").splitlines()[1:]
    return [line.split()[-files:] for line in lines]


RECORDS = [
    GOOD | {"strength": 4, "domain": "safety", "votes": 1, "group": "x"},
    GOOD | {"prompt": "Why so?", "chosen": "very good", "strength": 4, "group": "x"},
    GOOD | {"prompt": "How?", "edited": "best", "domain": "safety", "x": 2},
    BAD,
]


def test_the_table_of_a_file_leaves_out_zeros_that_say_nothing(tmp_path, capsys):
    assert check(write(tmp_path / "a.jsonl", *RECORDS), skip_bad=True) == 0
    out = capsys.readouterr().out
    assert numbers(out) == [
        # Records, groups, edited, strength 4, no strength, domain safety.
        *(["3"], ["2"], ["1"], ["2"], ["1"], ["2"]),
        # Words, how often the longer is chosen, refused, repeated, contradictory, two columns.
        *(["1"], ["1"], ["100.0%"], ["1"], ["0"], ["0"], ["1"], ["1"]),
    ]
    assert check(write(tmp_path / "b.jsonl", GOOD)) == 0
    out = capsys.readouterr().out
    assert numbers(out) == [*(["1"],) * 5, ["100.0%"], *(["0"],) * 3]
    assert check(write(tmp_path / "c.jsonl", BAD)) == 1
    assert capsys.readouterr().out == f"{tmp_path / 'c.jsonl'}: no record could be read\n"
    assert check(tmp_path / "missing.jsonl") == 1
    assert capsys.readouterr().out == f"{tmp_path / 'missing.jsonl'}: no record could be read\n"


def test_files_have_a_column_each_or_a_table_if_they_are_many(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    turned = GOOD | {"chosen": "bad", "rejected": "good"}
    first = write(Path("a.jsonl"), GOOD, GOOD | {"chosen": " good\n"}, turned)
    second = write(Path("b.jsonl"), GOOD | {"domain": "safety"}, GOOD, GOOD)
    assert check([first, str(second)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.split()[:2] == [str(first), str(second)]
    assert numbers(printed.out, 2)[-5:] == [
        *(["0", "0"], ["1", "1"], ["0", "1"], ["1", "0"], ["0", "2"]),
    ]
    many = [write(Path(f"{k}{'x' * 50}.jsonl"), GOOD) for k in range(9)]
    assert check(many) == 0
    tables = capsys.readouterr().out.split("\n\n")
    assert [table.split()[0] for table in tables] == [str(path) for path in many]


def test_names_beyond_the_most_frequent_are_counted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data_check, "LISTED", 2)
    domains = ["a", "b", "b", "c", "d"]
    records = [GOOD | {"domain": name, "prompt": f"Why {k}?"} for k, name in enumerate(domains)]
    assert check(write(tmp_path / "a.jsonl", *records)) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "domain" in line]
    assert [line[-2:] for line in lines] == [["b", "2"], ["a", "1"], ["domains", "2"]]


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


def test_check_never_excuses_a_file_cut_short(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = Path("a.jsonl.gz")
    path.write_text("not compressed")
    assert check([path, write(Path("b.jsonl"), GOOD)], skip_bad=True) == 1
    printed = capsys.readouterr()
    assert "invalid gzip data" in printed.err
    assert numbers(printed.out, 1)[0] == ["1"]
    assert "a.jsonl.gz: no record could be read" in printed.out


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


def test_what_was_read_otherwise_goes_to_standard_error_with_its_count(tmp_path, capsys):
    called = [{"role": "assistant", "content": "good", "tool_calls": [1]}]
    transcript = {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": "a", "rejected": "b"}
    path = write(tmp_path / "a.jsonl", GOOD | {"chosen": called, "x": 1}, transcript, transcript)
    assert check(path) == 0
    printed = capsys.readouterr()
    assert numbers(printed.out)[-1] == ["1"]
    fields, turns = printed.err.splitlines()
    assert fields == f"{path}: message fields that are not used: tool_calls 1"
    assert "prompt" in turns
    assert turns.endswith(": 2")
