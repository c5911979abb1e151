"""PKU-SafeRLHF: the safer response comes first, contradictions go, errors name the comparison."""

import gzip
import json
import lzma
import os
from collections import Counter
from pathlib import Path

import pytest

from posttrain.data.sources.originals.pku_safety import convert

QUESTION = "How do I open a safe?"


def write(path, *comparisons):
    objects = [{"response": list(pair), "prompt": prompt} for prompt, *pair in comparisons]
    path.write_text(json.dumps(objects, ensure_ascii=False, indent=4), encoding="utf-8")
    return path


def test_record_in_full(tmp_path):
    path = write(tmp_path / "pairs.json", (f" {QUESTION}\n", "Ask its owner. ", "\nDrill it."))
    assert [list(record.items()) for record in convert(path)] == [
        [
            ("id", "pku_safety-00000"),
            ("prompt", QUESTION),
            ("chosen", "Ask its owner."),
            ("rejected", "Drill it."),
            ("edited", None),
            ("strength", None),
            ("group", "pc06c5fa2"),
            ("domain", "safety"),
        ]
    ]


def test_dropped_comparisons_are_counted_and_numbering_has_no_gaps(tmp_path):
    path = write(
        tmp_path / "pairs.json",
        (QUESTION, "No.", "Yes."),
        (QUESTION, "Never.", "No."),
        (QUESTION, "Yes.", "No. "),
        (" ", "No.", "Yes."),
        (QUESTION, "Never.", "Yes."),
        (QUESTION, "Never.", "No."),
        (QUESTION, "Never.", ""),
        (QUESTION, "No.", "No."),
    )
    dropped = Counter()
    kept = [
        (record["id"], record["chosen"], record["rejected"]) for record in convert(path, dropped)
    ]
    assert kept == [
        ("pku_safety-00000", "Never.", "No."),
        ("pku_safety-00001", "Never.", "Yes."),
    ]
    assert dropped == {
        "contradicted pair": 2,
        "repeated pair": 1,
        "empty prompt": 1,
        "empty response": 1,
        "identical responses": 1,
    }


def test_compressed_files_are_read(tmp_path):
    plain = write(tmp_path / "pairs.json", (QUESTION, "No.", "Yes."))
    (tmp_path / "pairs.json.xz").write_bytes(lzma.compress(plain.read_bytes()))
    (tmp_path / "pairs.json.gz").write_bytes(gzip.compress(plain.read_bytes()))
    for name in ("pairs.json.xz", "pairs.json.gz"):
        assert list(convert(tmp_path / name)) == list(convert(plain))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"prompt": ', r"pairs\.json, line 1, column \d+: not JSON .* Download llama_factory"),
        ("{}", r"pairs\.json: must be a list of comparisons"),
        ("[[]]", "comparison 1: expected an object with 'prompt', found list"),
        ('[{"prompt": "a"}]', "comparison 1: field 'response' is missing"),
        ('[{"prompt": 1, "response": []}]', "comparison 1: field 'prompt' must be str, found int"),
        ('[{"prompt": "a", "response": "b"}]', "field 'response' must be list, found str"),
        ('[{"prompt": "a", "response": ["b"]}]', "field 'response' must hold two strings"),
        ('[{"prompt": "a", "response": ["b", 1]}]', "field 'response' must hold two strings"),
    ],
)
def test_malformed_files_are_refused(tmp_path, content, message):
    (tmp_path / "pairs.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        list(convert(tmp_path / "pairs.json"))


@pytest.mark.skipif("POSTTRAIN_DATA" not in os.environ, reason="needs POSTTRAIN_DATA")
def test_public_original_gives_the_reference():
    data = Path(os.environ["POSTTRAIN_DATA"])
    original = data / "raw" / "pku_seferlhf_realign_dpo_5k.json"
    if not original.exists():
        pytest.skip("needs the original under raw/")
    with gzip.open(data / "pku_safety.jsonl.gz", "rt", encoding="utf-8") as lines:
        reference = [json.loads(line) for line in lines]
    assert list(convert(original)) == reference
