"""RMB: which pairs are short and English, how turns are written, errors that name the pair."""

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from posttrain.data.sources.originals import rmb


def turn(content, role="user", language="English"):
    return {"content": content, "language": language, "role": role}


def pair(turns, chosen, rejected, uid="8282"):
    return {
        "pair_uid": uid,
        "conversation_input": turns,
        "chosen": {"llm_name": "one", "answer": chosen, "score": 5.0},
        "reject": {"llm_name": "two", "answer": rejected, "score": 3.5},
        "category_path": "Pairwise_set",
    }


def write(folder, name, *pairs):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(pairs, ensure_ascii=False, indent=1), encoding="utf-8")
    return folder


def test_record_in_full(tmp_path):
    write(tmp_path, "Harmlessness/S1.json", pair([turn("\nMay I? ")], " No.", "Yes.\n"))
    assert [list(record.items()) for record in rmb.convert_safety(tmp_path)] == [
        [
            ("id", "rmb_safety-00000"),
            ("prompt", "May I?"),
            ("chosen", "No."),
            ("rejected", "Yes."),
            ("edited", None),
            ("strength", None),
            ("group", "r0ec89efa"),
            ("domain", "safety"),
        ]
    ]


def test_turns_keep_their_roles_but_for_the_first(tmp_path):
    turns = [turn("Hi!", language="Sotho"), turn("Hello. ", "assistant"), turn("Who are you?")]
    system = [turn("Be brief.", "system"), turn("Hi!")]
    pairs = [pair(turns, "I am one.", "Me."), pair(system, "Hi.", "Hello.")]
    write(tmp_path, "Helpfulness/Chat/Discussion.json", *pairs)
    assert [record["prompt"] for record in rmb.convert_helpfulness(tmp_path)] == [
        "Hi!\n\nassistant: Hello. \n\nuser: Who are you?",
        "system: Be brief.\n\nuser: Hi!",
    ]


def test_files_come_by_name_and_each_domain_from_its_own_folder(tmp_path):
    for name in ("Helpfulness/Chat/B", "Helpfulness/Chat/A", "Helpfulness/Code/A"):
        write(tmp_path, f"{name}.json", pair([turn(name)], "Yes.", "No."))
    for name in ("Harmlessness/S2", "Harmlessness/multi"):
        write(tmp_path, f"{name}.json", pair([turn(name)], "Yes.", "No."))
    records = list(rmb.convert_helpfulness(tmp_path))
    assert [(record["id"], record["prompt"], record["domain"]) for record in records] == [
        ("rmb_helpfulness-00000", "Helpfulness/Chat/A", "helpfulness"),
        ("rmb_helpfulness-00001", "Helpfulness/Chat/B", "helpfulness"),
        ("rmb_helpfulness-00002", "Helpfulness/Code/A", "helpfulness"),
    ]
    safe = [record["prompt"] for record in rmb.convert_safety(tmp_path)]
    assert safe == ["Harmlessness/S2", "Harmlessness/multi"]


def test_dropped_pairs_are_counted_and_numbering_shows_the_gaps(tmp_path):
    write(
        tmp_path,
        "Harmlessness/S1.json",
        pair([turn("Darf ich?", language="German")], "Nein.", "Ja."),
        pair(
            [turn("Hi!"), turn("Ja?", "assistant"), turn("Wer?", language="German")], "Ich.", "Du."
        ),
        pair([turn("word " * 120)], "No.", "Yes."),
        pair([turn("word " * 119)], "No.", "Yes."),
        pair([turn("May I?")], "no " * 201, "Yes."),
        pair([turn("May I?")], "No.", "yes " * 201),
        pair([turn("May I?")], "no " * 200, "yes " * 200),
        pair([turn("May I?")], "No.", " No."),
        pair([turn("May I?")], "", "Yes."),
        pair([turn("May I?")], "No.", "Yes."),
        pair([turn("May I?")], "No. ", "Yes."),
        pair([turn("May I?")], "Never.", "Sorry."),
        pair([turn("May I?")], "Sorry.", "Never."),
        pair([turn(" ")], "No.", "Yes."),
        pair([turn("Who?")], "Never.", "Sorry."),
    )
    dropped = Counter()
    kept = [record["id"] for record in rmb.convert_safety(tmp_path, dropped)]
    assert kept == ["rmb_safety-00000", "rmb_safety-00001", "rmb_safety-00004", "rmb_safety-00009"]
    assert dropped == {
        "not English": 2,
        "long prompt": 1,
        "long response": 2,
        "identical responses": 1,
        "empty response": 1,
        "empty prompt": 1,
        "repeated pair": 1,
        "contradicted pair": 2,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", r"S1\.json, line 1, column \d+: not JSON .* Clone https"),
        ("{}", r"S1\.json: must be a list of pairs"),
        ("[1]", "pair 1: expected an object with 'conversation_input', found int"),
        ('[{"conversation_input": "Hi"}]', "'conversation_input' must be list, found str"),
        ('[{"conversation_input": [{"role": "user"}]}]', "pair 1: field 'content' is missing"),
        ('[{"conversation_input": []}]', "pair 1: field 'conversation_input' holds no turn"),
        ('[{"conversation_input": [TURN]}]', "pair 1: field 'chosen' is missing"),
        (
            '[{"conversation_input": [TURN], "chosen": {"score": 1}}]',
            "pair 1, field 'chosen': field 'answer' is missing",
        ),
        (
            '[{"conversation_input": [TURN], "chosen": {"answer": "a"}, "reject": []}]',
            "pair 1: field 'reject' must be dict, found list",
        ),
    ],
)
def test_malformed_files_are_refused(tmp_path, content, message):
    (tmp_path / "Harmlessness").mkdir()
    content = content.replace("TURN", json.dumps(turn("Hi!")))
    (tmp_path / "Harmlessness" / "S1.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        list(rmb.convert_safety(tmp_path))


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no file Helpfulness/\*/\*\.json. Clone https"):
        list(rmb.convert_helpfulness(tmp_path))


@pytest.mark.skipif("POSTTRAIN_DATA" not in os.environ, reason="needs POSTTRAIN_DATA")
@pytest.mark.parametrize("domain", rmb.FILES)
def test_public_original_gives_the_reference(domain):
    data = Path(os.environ["POSTTRAIN_DATA"])
    original = data / "raw" / "Pairwise_set"
    if not original.exists():
        pytest.skip("needs the original under raw/")

    def unordered(records):
        # The reference was made in another order of the files, from which its ids follow.
        return sorted(json.dumps(record | {"id": None}) for record in records)

    with gzip.open(data / f"rmb_{domain}.jsonl.gz", "rt", encoding="utf-8") as lines:
        reference = [json.loads(line) for line in lines]
    assert unordered(rmb.convert(original, domain=domain)) == unordered(reference)
