"""QA-Feedback: preferences to pairs, when a correction counts as edited, and errors."""

import gzip
import json
import lzma
import os
from collections import Counter
from pathlib import Path

import pytest

from posttrain.data.sources.originals.finegrained_rlhf import convert


def example(**changes):
    record = {
        "question": "Where do herons nest?",
        "passages": [
            ["Heron", "Herons nest in trees.", "They fish."],
            ["Nest", "Nests differ."],
        ],
        "prediction 1": "In trees. ",
        "prediction 2": "On roofs.",
        "prediction 3": "In reeds.",
        "prediction 4": "Nowhere.",
        "feedback": {"errors": [], "corrected-prediction": "In tall trees."},
        "preference": [1, 0, 0, 0, 0, 2],
    }
    return record | changes


def write(path, *examples):
    path.write_text(json.dumps(examples), encoding="utf-8")
    return path


def test_records_in_full(tmp_path):
    dropped = Counter()
    records = list(convert(write(tmp_path / "dev.json", example()), dropped))
    prompt = "Where do herons nest?\n\nHeron: Herons nest in trees. They fish.\nNest: Nests differ."
    assert [list(record.items()) for record in records] == [
        [
            ("id", "finegrained_rlhf-00000"),
            ("prompt", prompt),
            ("chosen", "In trees."),
            ("rejected", "On roofs."),
            ("edited", "In tall trees."),
            ("strength", None),
            ("group", "qe763476f"),
        ],
        [
            ("id", "finegrained_rlhf-00001"),
            ("prompt", prompt),
            ("chosen", "Nowhere."),
            ("rejected", "In reeds."),
            ("edited", None),
            ("strength", None),
            ("group", "qe763476f"),
        ],
    ]
    assert dropped == {"no preference": 4}


def test_comparisons_come_in_the_documented_order(tmp_path):
    path = write(tmp_path / "dev.json", example(preference=[1, 1, 1, 2, 2, 1]))
    assert [(record["chosen"], record["rejected"]) for record in convert(path)] == [
        ("In trees.", "On roofs."),
        ("In trees.", "In reeds."),
        ("In trees.", "Nowhere."),
        ("In reeds.", "On roofs."),
        ("Nowhere.", "On roofs."),
        ("In reeds.", "Nowhere."),
    ]


@pytest.mark.parametrize("correction", ["", "  ", "In trees.", "On roofs."])
def test_a_correction_that_adds_no_third_text_is_not_edited(tmp_path, correction):
    feedback = {"corrected-prediction": correction}
    path = write(tmp_path / "dev.json", example(feedback=feedback, preference=[1, 0, 0, 0, 0, 0]))
    assert [record["edited"] for record in convert(path)] == [None]


def test_the_correction_of_a_losing_answer_is_not_used(tmp_path):
    path = write(tmp_path / "dev.json", example(preference=[2, 0, 0, 0, 0, 0]))
    assert [record["edited"] for record in convert(path)] == [None]


def test_without_passages_the_prompt_is_the_question(tmp_path):
    path = write(tmp_path / "dev.json", example(passages=[]))
    assert next(convert(path))["prompt"] == "Where do herons nest?"


def test_empty_and_identical_answers_are_counted(tmp_path):
    changes = {"prediction 2": "In trees.", "prediction 4": " "}
    path = write(tmp_path / "dev.json", example(**changes))
    dropped = Counter()
    assert list(convert(path, dropped)) == []
    assert dropped == {"no preference": 4, "identical answers": 1, "empty answer": 1}


def test_compressed_file_is_the_same(tmp_path):
    plain = write(tmp_path / "dev.json", example())
    (tmp_path / "dev.json.xz").write_bytes(lzma.compress(plain.read_bytes()))
    assert list(convert(tmp_path / "dev.json.xz")) == list(convert(plain))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"question": ]', r"dev\.json, line 1, column 15: not JSON .* Download tasks"),
        ("{}", "must be a list of examples"),
        ("[3]", "example 1: expected an object with 'question', found int"),
        (json.dumps([example(question=None)]), "field 'question' must be str, found NoneType"),
        (json.dumps([example(feedback={})]), "field 'corrected-prediction' is missing"),
        (json.dumps([example(), example(preference=[1, 2])]), "example 2: field 'preference'"),
        (json.dumps([example(preference=[1, 2, 3, 1, 1, 1])]), "field 'preference' must hold six"),
        (json.dumps([example(passages=["Heron"])]), "field 'passages' must hold lists"),
        (json.dumps([example(passages=[[]])]), "field 'passages' must hold lists"),
    ],
)
def test_malformed_files_are_refused(tmp_path, content, message):
    (tmp_path / "dev.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        list(convert(tmp_path / "dev.json"))


@pytest.mark.skipif("POSTTRAIN_DATA" not in os.environ, reason="needs POSTTRAIN_DATA")
def test_public_original_gives_the_reference():
    data = Path(os.environ["POSTTRAIN_DATA"])
    with gzip.open(data / "finegrained_rlhf.jsonl.gz", "rt", encoding="utf-8") as lines:
        reference = [json.loads(line) for line in lines]
    dropped = Counter()
    records = list(convert(data / "raw" / "finegrained_rlhf_dev_feedback.json.xz", dropped))
    assert list(map(list, records)) == list(map(list, reference))
    assert records == reference
    assert dropped == {"no preference": 384}
