"""HH-RLHF: where the shared prompt ends, what is dropped, and errors that name the line."""

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from posttrain.data.sources.originals.hh_rlhf import convert, shared_prompt

OPENING = "\n\nHuman: Hello\n\nAssistant: Hi!\n\nHuman: May I?\n\nAssistant:"


def write(path, *pairs):
    lines = [json.dumps({"chosen": chosen, "rejected": rejected}) for chosen, rejected in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_record_in_full(tmp_path):
    path = write(tmp_path / "test.jsonl", (f"{OPENING} Please do.", f"{OPENING}  No way. "))
    assert [list(record.items()) for record in convert(path)] == [
        [
            ("id", "hh_harmless-00000"),
            ("prompt", [{"role": "user", "content": OPENING.strip()}]),
            ("chosen", "Please do."),
            ("rejected", "No way."),
            ("edited", None),
            ("strength", None),
            ("group", "h828b03f6"),
            ("domain", "safety"),
        ]
    ]


def test_a_response_that_imitates_further_turns_keeps_them():
    imitation = f"{OPENING} Sure.\n\nHuman: Thanks\n\nAssistant: Welcome."
    assert shared_prompt(imitation, f"{OPENING} Never.") == OPENING
    assert shared_prompt(f"{OPENING} Never.", imitation) == OPENING
    assert shared_prompt(imitation, OPENING) == OPENING


def test_dropped_lines_are_counted_and_numbering_shows_the_gaps(tmp_path):
    path = write(
        tmp_path / "test.jsonl",
        (f"{OPENING} ", f"{OPENING} No."),
        (f"{OPENING} Yes.", f"{OPENING} No."),
        (f"{OPENING} Yes.", f"{OPENING} Yes. "),
        ("\n\nHuman: A\n\nAssistant: a", "\n\nHuman: B\n\nAssistant: b"),
        (f"{OPENING} Yes.", f"{OPENING} Perhaps."),
    )
    dropped = Counter()
    assert [record["id"] for record in convert(path, dropped)] == [
        "hh_harmless-00001",
        "hh_harmless-00004",
    ]
    assert dropped == {"empty response": 1, "identical responses": 1, "no shared prompt": 1}


def test_unusual_line_separators_inside_a_response_do_not_split_it(tmp_path):
    line = json.dumps({"chosen": f"{OPENING} a\u2028b", "rejected": f"{OPENING} c"})
    plain = line.replace("\\u2028", "\u2028")
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(plain.encode("utf-8")))
    assert [record["chosen"] for record in convert(tmp_path / "test.jsonl.gz")] == ["a\u2028b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"chosen": ', r"test\.jsonl, line 1, column \d+: not JSON .* Download harmless-base"),
        ("", "line 1, column 1: not JSON"),
        ("[]", "line 1: expected an object with 'chosen', found list"),
        ('{"chosen": "a"}', "line 1: field 'rejected' is missing"),
        ('{"chosen": ["a"], "rejected": "b"}', "line 1: field 'chosen' must be str, found list"),
    ],
)
def test_malformed_files_are_refused(tmp_path, content, message):
    (tmp_path / "test.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        list(convert(tmp_path / "test.jsonl"))


@pytest.mark.skipif("POSTTRAIN_DATA" not in os.environ, reason="needs POSTTRAIN_DATA")
def test_public_original_gives_the_reference():
    data = Path(os.environ["POSTTRAIN_DATA"])
    with gzip.open(data / "hh_harmless.jsonl.gz", "rt", encoding="utf-8") as lines:
        reference = [json.loads(line) for line in lines]
    dropped = Counter()
    records = list(convert(data / "raw" / "hh_harmless_base_test.jsonl.gz", dropped))
    assert list(map(list, records)) == list(map(list, reference))
    texts = [record | {"prompt": record["prompt"][0]["content"]} for record in records]
    assert texts == reference
    assert dropped == {"empty response": 4}
