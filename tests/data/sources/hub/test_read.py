"""Data sets of the hub: every converter, both ways of reading, and errors that say what to do.

Each test writes a few rows in the original's own files, so nothing here needs the network.
"""

import gzip
import hashlib
import itertools
import json
import os
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import datasets
import pytest
from datasets import IterableDataset
from datasets.exceptions import DatasetNotFoundError
from hypothesis import given
from hypothesis import strategies as st

from posttrain.data import ratings
from posttrain.data.messages import BadRecord, Message
from posttrain.data.notes import Notes
from posttrain.data.preferences import STRENGTHS, fingerprint
from posttrain.data.ratings import read_record
from posttrain.data.sources.hub import read as hub
from posttrain.data.sources.hub.converters import convert_helpsteer3_preference, strength_of
from posttrain.data.sources.hub.read import HUB, iterate
from posttrain.data.sources.hub.rows import Place
from posttrain.data.sources.originals.hh_rlhf import convert
from posttrain.data.splits import split

HH = "Anthropic/hh-rlhf"
HELPSTEER2 = "nvidia/HelpSteer2"
HELPSTEER3 = "nvidia/HelpSteer3"
PKU = "PKU-Alignment/PKU-SafeRLHF"
TRL = "trl-lib/ultrafeedback_binarized"

datasets.disable_progress_bars()


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    """Keep what `datasets` writes out of the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def write(folder: Path, name: str, *rows) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder


def read(name, folder, **options):
    """Read both ways, which must agree, and return the groups and what was dropped."""
    results = []
    for streaming in (False, True):
        dropped = Counter()
        groups = list(iterate(name, path=folder, streaming=streaming, dropped=dropped, **options))
        results.append((groups, dict(dropped)))
    assert results[0] == results[1]
    ids = [group.id for group in results[0][0]]
    assert len(set(ids)) == len(ids)
    return results[0]


def summary(groups):
    return [(group.id, *group.responses, group.strength) for group in groups]


def context(*contents, last="Why?"):
    roles = itertools.cycle(("user", "assistant"))
    return [{"role": next(roles), "content": content} for content in (*contents, last)]


def compared(preference, one="one", two="two", prompt=None):
    return {
        "domain": "general",
        "language": "english",
        "context": prompt or context(),
        "response1": one,
        "response2": two,
        "overall_preference": preference,
        "individual_preference": [{"score": preference, "reasoning": "because"}],
    }


def edit(original="one", edited="one!", prompt=None):
    return {
        "domain": "general",
        "language": "english",
        "context": prompt or context(),
        "original_response": original,
        "edited_response": edited,
        "feedback": ["partially helpful"],
        "change_summary": "an exclamation mark",
    }


def helpsteer2(preference, one="one", two="two", *, split="train", prompt="Why?"):
    return {
        "split": split,
        "prompt": prompt,
        "response_1": one,
        "response_2": two,
        "preference_strength": preference,
        "preference_statement": "because",
    }


def rated(helpfulness, response, prompt="Why?"):
    return {"prompt": prompt, "response": response, "helpfulness": helpfulness, "verbosity": 2}


def judged(better, safer, *, prompt="How?", responses=("zero", "one")):
    return {
        "prompt": prompt,
        "response_0": responses[0],
        "response_1": responses[1],
        "is_response_0_safe": True,
        "response_0_severity_level": 0,
        "better_response_id": better,
        "safer_response_id": safer,
    }


# Strength


@given(st.integers(-3, 3))
def test_strength_grows_with_the_preference_whichever_response_wins(preference):
    strength = strength_of(preference)
    assert strength == strength_of(-preference)
    if preference == 0:
        assert strength is None
    else:
        assert strength in STRENGTHS
        assert strength - strength_of(1) == abs(preference) - 1


@given(st.integers(-3, 3), st.text(min_size=1), st.text(min_size=1))
def test_the_order_of_the_two_responses_does_not_matter(preference, one, two):
    def result(row):
        place = Place("id", "train", Counter())
        return list(convert_helpsteer3_preference(row, place)), place.dropped

    straight, swapped = compared(preference, one, two), compared(-preference, two, one)
    groups, dropped = result(straight)
    assert result(swapped) == (groups, dropped)
    assert len(groups) + dropped.total() == 1


def test_strength_says_the_words_of_the_cards():
    words = [STRENGTHS[strength_of(preference)] for preference in (1, 2, 3)]
    assert words == ["slightly", "better", "significantly better"]


# hh-rlhf


def transcript(prompt, response):
    return f"{prompt}\n\nAssistant: {response}"


def test_hh_rlhf_reads_turns_and_takes_the_domain_from_the_subset(tmp_path):
    opening = "\n\nHuman: Hello\n\nAssistant: Hi!\n\nHuman: May I?"
    row = {"chosen": transcript(opening, "Do."), "rejected": transcript(opening, "No. ")}
    for subset in HUB[HH].subsets:
        write(tmp_path, f"{subset}/train.jsonl.gz", row)
    groups, dropped = read(HH, tmp_path)
    assert summary(groups) == [
        (f"{HH}/harmless-base/train-0", "Do.", "No.", None),
        (f"{HH}/helpful-base/train-0", "Do.", "No.", None),
    ]
    assert [group.domain for group in groups] == ["safety", "helpfulness"]
    assert groups[0].prompt == (
        Message("user", "Hello"),
        Message("assistant", "Hi!"),
        Message("user", "May I?"),
    )
    assert dropped == {"repeated comparison": 2}
    assert [group.id for group in read(HH, tmp_path, subset="helpful-online")[0]] == [
        f"{HH}/helpful-online/train-0"
    ]


def test_hh_rlhf_counts_what_it_drops_and_numbers_show_the_gaps(tmp_path):
    def pair(prompt, chosen="Yes.", rejected="No."):
        return {"chosen": transcript(prompt, chosen), "rejected": transcript(prompt, rejected)}

    rows = [
        {"chosen": "\n\nHuman: A\n\nAssistant: a", "rejected": "\n\nHuman: B\n\nAssistant: b"},
        pair("\n\nHuman:  "),
        pair("\n\nHuman: A\n\nAssistant: a"),
        pair("once\n\nHuman: A"),
        pair(""),
        pair("\n\nHuman: A", chosen=" "),
        pair("\n\nHuman: A", rejected="Yes. "),
        pair("\n\nHuman: A\n\nHuman: B"),
    ]
    write(tmp_path, "harmless-base/test.jsonl.gz", *rows)
    groups, dropped = read(HH, tmp_path, subset="harmless-base", split="test")
    assert summary(groups) == [(f"{HH}/harmless-base/test-7", "Yes.", "No.", None)]
    assert groups[0].prompt == (Message("user", "A"), Message("user", "B"))
    assert dropped == {
        "no shared prompt": 1,
        "broken dialogue": 4,
        "empty response": 1,
        "identical responses": 1,
    }


def test_turns_of_one_conversation_share_a_group(tmp_path):
    first = "\n\nHuman: Hello"
    rows = [
        {"chosen": transcript(prompt, "Yes."), "rejected": transcript(prompt, "No.")}
        for prompt in (first, f"{first}\n\nAssistant: Hi!\n\nHuman: Go on", "\n\nHuman: Other")
    ]
    write(tmp_path, "helpful-base/train.jsonl.gz", *rows)
    groups, _ = read(HH, tmp_path, subset="helpful-base")
    assert groups[0].cluster_id == groups[1].cluster_id != groups[2].cluster_id
    training, test = split(groups, test_fraction=0.5, seed=0)
    assert sorted(map(list, (training, test))) == [[0, 1], [2]]


@pytest.mark.skipif("POSTTRAIN_DATA" not in os.environ, reason="needs POSTTRAIN_DATA")
def test_a_file_of_hh_rlhf_gives_the_same_pairs_as_its_converter(tmp_path):
    original = Path(os.environ["POSTTRAIN_DATA"]) / "raw" / "hh_harmless_base_test.jsonl.gz"
    (tmp_path / "harmless-base").mkdir()
    shutil.copy(original, tmp_path / "harmless-base" / "test.jsonl.gz")
    groups, dropped = read(HH, tmp_path, subset="harmless-base", split="test")
    expected = [(record["chosen"], record["rejected"]) for record in convert(original)]
    assert [group.responses for group in groups] == expected
    assert dropped == {"empty response": 4}


# HelpSteer2


def test_helpsteer2_preferences(tmp_path):
    rows = [
        helpsteer2(-3),
        helpsteer2(2, "first"),
        helpsteer2(0),
        helpsteer2(1, split="val"),
        helpsteer2(-3),
        helpsteer2(3),
        helpsteer2(1, " "),
    ]
    write(tmp_path, "preference/preference.jsonl.gz", *rows)
    groups, dropped = read(HELPSTEER2, tmp_path)
    assert summary(groups) == [
        (f"{HELPSTEER2}/preference/train-0", "one", "two", 4),
        (f"{HELPSTEER2}/preference/train-1", "two", "first", 3),
        (f"{HELPSTEER2}/preference/train-5", "two", "one", 4),
    ]
    assert {group.domain for group in groups} == {"helpfulness"}
    assert dropped == {"tie": 1, "repeated comparison": 1, "empty response": 1}
    groups, dropped = read(HELPSTEER2, tmp_path, split="validation")
    assert summary(groups) == [(f"{HELPSTEER2}/preference/validation-3", "two", "one", 2)]
    assert dropped == {}


def test_helpsteer2_prompts_of_several_turns(tmp_path):
    prompt = "Hi\n<extra_id_1>Assistant\nHello\nyou\n<extra_id_1>User\nWhy <extra_id_1>?"
    write(tmp_path, "preference/preference.jsonl.gz", helpsteer2(1, prompt=prompt))
    groups, _ = read(HELPSTEER2, tmp_path)
    assert groups[0].prompt == (
        Message("user", "Hi"),
        Message("assistant", "Hello\nyou"),
        Message("user", "Why <extra_id_1>?"),
    )


def test_helpsteer2_ratings_pair_consecutive_rows(tmp_path):
    rows = [
        (rated(4, "good"), rated(1, "bad")),
        (rated(2, "good"), rated(2, "bad")),
        (rated(0, "bad", "How?"), rated(4, "good", "How?")),
    ]
    write(tmp_path, "train.jsonl.gz", *itertools.chain(*rows))
    groups, dropped = read(HELPSTEER2, tmp_path, subset="ratings")
    assert summary(groups) == [
        (f"{HELPSTEER2}/ratings/train-0", "good", "bad", 3),
        (f"{HELPSTEER2}/ratings/train-4", "good", "bad", 4),
    ]
    assert dropped == {"equal helpfulness": 1}


@pytest.mark.parametrize(
    "rows",
    [
        [rated(1, "a"), rated(2, "b", "How?")],
        [rated(1, "a"), rated(2, "b"), rated(3, "c")],
    ],
)
def test_helpsteer2_ratings_without_a_partner_are_refused(tmp_path, rows):
    write(tmp_path, "train.jsonl.gz", *rows)
    first = len(rows) - 1 if len(rows) == 3 else 0
    with pytest.raises(BadRecord, match=f"ratings/train, row {first} .*'prompt': it differs"):
        list(iterate(HELPSTEER2, subset="ratings", path=tmp_path))


# HelpSteer3


def test_helpsteer3_joins_edits_of_chosen_responses(tmp_path):
    rows = [
        compared(-2),
        compared(3),
        compared(-1, two="three"),
        compared(0, "x", "y"),
        compared(-2),
        compared(1, "p", "q", prompt=context("Hi", "Hello")),
    ]
    edits = [
        edit(),  # of the chosen response of rows 0 and 2, and of the rejected one of row 1
        edit(edited="one?"),  # a second edit of the same response
        edit("two", "two!", prompt=context("Hi", "Hello")),  # another context
        edit("two", "one"),  # would turn the ranking of row 1 round
        edit("x", "x!"),  # of a tie
        edit("q", "q"),
        edit("q ", "q!", prompt=context("Hi", "Hello")),  # of row 5, but for white space
    ]
    write(tmp_path, "preference/train.jsonl.gz", *rows)
    write(tmp_path, "edit/train.jsonl.gz", *edits)
    groups, dropped = read(HELPSTEER3, tmp_path)
    assert summary(groups) == [
        (f"{HELPSTEER3}/preference/train-0", "one!", "one", "two", 3),
        (f"{HELPSTEER3}/preference/train-1", "two", "one", 4),
        (f"{HELPSTEER3}/preference/train-2", "one!", "one", "three", 2),
        (f"{HELPSTEER3}/preference/train-5", "q!", "q", "p", 2),
        (f"{HELPSTEER3}/edit/train-1", "one?", "one", None),
        (f"{HELPSTEER3}/edit/train-2", "two!", "two", None),
        (f"{HELPSTEER3}/edit/train-3", "one", "two", None),
        (f"{HELPSTEER3}/edit/train-4", "x!", "x", None),
    ]
    assert dropped == {"tie": 1, "repeated comparison": 1, "identical responses": 1}
    assert {group.domain for group in groups} == {"helpfulness"}
    assert groups[0].prompt == (Message("user", "Why?"),)
    assert (
        groups[0].cluster_id == groups[1].cluster_id != groups[3].cluster_id == groups[5].cluster_id
    )


def test_helpsteer3_subsets_alone_are_pairs(tmp_path):
    write(tmp_path, "preference/validation.jsonl.gz", compared(-2))
    write(tmp_path, "edit/validation.jsonl.gz", edit(), edit())
    groups, dropped = read(HELPSTEER3, tmp_path, subset="preference", split="validation")
    assert summary(groups) == [(f"{HELPSTEER3}/preference/validation-0", "one", "two", 3)]
    assert dropped == {}
    groups, dropped = read(HELPSTEER3, tmp_path, subset="edit", split="validation")
    assert summary(groups) == [(f"{HELPSTEER3}/edit/validation-0", "one!", "one", None)]
    assert dropped == {"repeated comparison": 1}


def test_a_bad_edit_is_reported_where_it_stands(tmp_path):
    write(tmp_path, "preference/train.jsonl.gz", compared(-2))
    write(tmp_path, "edit/train.jsonl.gz", edit("other"), edit() | {"original_response": None})
    groups = iterate(HELPSTEER3, path=tmp_path)
    assert [next(groups).id[-7:] for _ in range(2)] == ["train-0", "train-0"]
    with pytest.raises(BadRecord, match=r"edit/train, row 1 .*'original_response': it is missing"):
        next(groups)


def test_an_edit_without_text_is_not_joined_but_reported(tmp_path):
    write(tmp_path, "preference/train.jsonl.gz", compared(-2), compared(-2, two="three"))
    write(tmp_path, "edit/train.jsonl.gz", edit(edited=None), edit(edited=" "))
    groups, dropped = read(HELPSTEER3, tmp_path, skip_bad=True)
    assert [group.has_edit for group in groups] == [False, False]
    assert dropped == {"bad records": 1, "empty response": 1}


# PKU-SafeRLHF


def test_pku_saferlhf_gives_a_group_for_each_judgement(tmp_path):
    rows = [
        judged(0, 1),
        judged(1, 1, prompt=" "),
        judged(1, 1, prompt="Who?"),
        judged(0, 0, responses=("", "one")),
    ]
    write(tmp_path, "data/Alpaca-7B/train.jsonl", *rows)
    write(tmp_path, "data/Alpaca2-7B/train.jsonl", judged(0, 0))
    write(tmp_path, "data/Alpaca3-8B/train.jsonl", judged(0, 1, prompt="Last?"))
    groups, dropped = read(PKU, tmp_path)
    found = [(group.id.removeprefix(f"{PKU}/"), group.domain, group.chosen) for group in groups]
    assert found == [
        ("alpaca-7b/train-0-helpfulness", "helpfulness", "zero"),
        ("alpaca-7b/train-0-safety", "safety", "one"),
        ("alpaca-7b/train-2-helpfulness", "helpfulness", "one"),
        ("alpaca-7b/train-2-safety", "safety", "one"),
        ("alpaca2-7b/train-0-safety", "safety", "zero"),
        ("alpaca3-8b/train-0-helpfulness", "helpfulness", "zero"),
        ("alpaca3-8b/train-0-safety", "safety", "one"),
    ]
    assert len({group.cluster_id for group in groups}) == 3
    assert {group.strength for group in groups} == {None}
    assert dropped == {"empty prompt": 2, "empty response": 2, "repeated comparison": 1}


# TRL preference sets


def test_a_trl_set_is_read_as_it_is(tmp_path):
    turn = {"role": "user", "content": "Why?"}
    row = {
        "id": "same",
        "chosen": [turn, {"role": "assistant", "content": "So."}],
        "rejected": [turn, {"role": "assistant", "content": "No."}],
        "score_chosen": 9.0,
    }
    write(tmp_path, "train.jsonl", row, row)
    groups, dropped = read(TRL, tmp_path)
    assert summary(groups) == [
        (f"{TRL}/train-0", "So.", "No.", None),
        (f"{TRL}/train-1", "So.", "No.", None),
    ]
    assert groups[0].prompt == (Message("user", "Why?"),)
    assert dropped == {}


def test_a_set_that_lists_responses_gives_their_comparisons(tmp_path):
    prompt = "\n\nHuman: Why?\n\nAssistant: "
    answers = [{"answer": text, "model": "m", "rank": rank} for rank, text in enumerate("abc", 1)]
    write(tmp_path, "train.jsonl", {"prompt": prompt, "answers": answers, "turns": 1})
    notes = Notes()
    reader = partial(read_record, min_difference=2)
    options = {"path": tmp_path, "notes": notes, "reader": reader}
    (group,) = iterate("berkeley-nest/Nectar", **options)
    assert (group.id, group.responses) == ("berkeley-nest/Nectar/train-0#1>3", ("a", "c"))
    assert notes.comparisons == {ratings.PAIRS: 1, ratings.TOO_CLOSE: 2}
    assert notes.columns == {"answers.model": 1, "turns": 1}


def test_what_a_trl_set_has_beside_its_format_is_noted_and_columns_of_known_sets_are_not(tmp_path):
    messages = [{"role": "assistant", "content": text, "tool_calls": ["x"]} for text in "ab"]
    row = {"prompt": "Why?", "chosen": messages[:1], "rejected": messages[1:], "score_chosen": 3}
    write(tmp_path / "trl", "train.jsonl", row, row | {"prompt": "How?"})
    notes = Notes()
    list(iterate(TRL, path=tmp_path / "trl", notes=notes))
    assert notes == Notes(columns={"score_chosen": 2}, fields={"tool_calls": 2})
    fields = {"split": "train", "prompt": "Why?", "response_1": "a", "response_2": "b"}
    write(tmp_path / "known", "preference/preference.jsonl.gz", fields | {"preference_strength": 1})
    notes = Notes()
    assert len(list(iterate(HELPSTEER2, path=tmp_path / "known", notes=notes))) == 1
    assert notes == Notes()


def test_configurations_of_a_trl_set(tmp_path):
    write(tmp_path, "hard/test.jsonl", {"prompt": "p", "chosen": "c", "rejected": "r"})
    card = (
        "configs:\n- config_name: hard\n  data_files:\n  - split: test\n    path: hard/test.jsonl"
    )
    (tmp_path / "README.md").write_text(f"---\n{card}\n---\n")
    groups, _ = read("some/set", tmp_path, subset="hard", split="test")
    assert summary(groups) == [("some/set/hard/test-0", "c", "r", None)]


# Errors


@pytest.mark.parametrize(
    ("name", "file", "row", "options", "message"),
    [
        (HH, "helpful-base/train.jsonl.gz", {"chosen": "a"}, {"subset": "helpful-base"}, "'rej"),
        (HELPSTEER2, "preference/preference.jsonl.gz", helpsteer2(-4), {}, "'preference_strength'"),
        (HELPSTEER2, "preference/preference.jsonl.gz", helpsteer2(1.5), {}, "'preference_streng"),
        (HELPSTEER2, "preference/preference.jsonl.gz", helpsteer2(1, split="x"), {}, "'split'"),
        (HELPSTEER2, "preference/preference.jsonl.gz", helpsteer2(1, prompt=" "), {}, "'prompt'"),
        (HELPSTEER2, "preference/preference.jsonl.gz", helpsteer2(1, 7), {}, "1': it must be text"),
        (
            HELPSTEER2,
            "preference/preference.jsonl.gz",
            helpsteer2(1, prompt="a\n<extra_id_1>Assistant\nb"),
            {},
            r"'prompt\[1\]\.role': the prompt must end with a user turn",
        ),
        (
            HELPSTEER3,
            "preference/train.jsonl.gz",
            compared(True),
            {"subset": "preference"},
            "'overall_preference': True is not a whole number from -3 to 3",
        ),
        (
            HELPSTEER3,
            "preference/train.jsonl.gz",
            compared(1, prompt="Why?"),
            {"subset": "preference"},
            "'context': it must be a list of messages, not 'Why",
        ),
        (
            HELPSTEER3,
            "preference/train.jsonl.gz",
            compared(1, prompt=context("Hi", "Hello", last=" ")),
            {"subset": "preference"},
            r"'context\[2\]\.content': it is empty",
        ),
        (
            PKU,
            "data/Alpaca-7B/train.jsonl",
            judged(0, 2),
            {"subset": "alpaca-7b"},
            "'safer_response_id': 2 is not a whole number from 0 to 1",
        ),
        (TRL, "train.jsonl", {"chosen": "a", "prompt": "b"}, {}, "'rejected': it is missing"),
    ],
)
def test_bad_rows_are_named_or_counted(tmp_path, name, file, row, options, message):
    write(tmp_path, file, row)
    for streaming in (False, True):
        groups = iterate(name, path=tmp_path, streaming=streaming, **options)
        with pytest.raises(BadRecord, match=rf"{name}.*train, row 0 \(counted from 0\).*{message}"):
            list(groups)
    assert read(name, tmp_path, skip_bad=True, **options) == ([], {"bad records": 1})


def test_whole_numbers_may_be_stored_as_floats(tmp_path):
    write(tmp_path, "preference/preference.jsonl.gz", helpsteer2(2.0))
    assert [group.strength for group in read(HELPSTEER2, tmp_path)[0]] == [3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "helpsteer"}, "unknown data set 'helpsteer'; use Anthropic/hh-rlhf, .* owner/n"),
        ({"name": HELPSTEER3, "subset": "x"}, "no subset 'x'; choose one of preference, edit"),
        ({"name": HELPSTEER3, "split": "test"}, "preference has no split 'test'; .* train, valida"),
        ({"name": HELPSTEER3, "path": "nowhere"}, "nowhere is not a folder; .* nvidia/HelpSteer3"),
        ({"name": HELPSTEER3, "path": ".", "revision": "main"}, "not both"),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        iterate(**arguments)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "Unable to find"),
        (gzip.compress(b'{"chosen": "a", "rejected": "b"}\n' * 999)[:60], "ended before"),
        (gzip.compress(b'{"chosen": \n'), "JSON"),
        (gzip.compress(b""), "hf download|the file has no rows"),
    ],
    ids=["missing", "cut off", "not JSON", "empty"],
)
def test_unreadable_files_are_named_with_a_remedy(tmp_path, content, message, streaming):
    (tmp_path / "harmless-base").mkdir()
    if content is not None:
        (tmp_path / "harmless-base/train.jsonl.gz").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        list(iterate(HH, subset="harmless-base", path=tmp_path, streaming=streaming))
    assert "download" in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


def test_an_unknown_split_of_a_trl_set_is_named_with_the_known_ones(tmp_path):
    write(tmp_path, "train.jsonl", {"prompt": "p", "chosen": "c", "rejected": "r"})
    for streaming in (False, True):
        with pytest.raises(ValueError, match=r"split.*nope.*\['train'\]"):
            iterate("some/set", path=tmp_path, split="nope", streaming=streaming)


REVISION = HUB[HELPSTEER3].revision


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ConnectionError("Couldn't reach 'nvidia/HelpSteer3' on the Hub"),
            rf"Couldn't reach .* without network, run `hf download --repo-type dataset "
            rf"nvidia/HelpSteer3 --revision {REVISION} --local-dir FOLDER` .* as 'path'",
        ),
        (
            DatasetNotFoundError("Dataset doesn't exist on the Hub"),
            "check name .* use one of Anthr",
        ),
        (
            DatasetNotFoundError("Dataset is a gated dataset on the Hub."),
            r"accept its terms at https://huggingface\.co/datasets/nvidia/HelpSteer3, .*hf auth",
        ),
        (RuntimeError("Dataset scripts are no longer supported"), "no longer supported.*see https"),
        (ValueError("BuilderConfig 'x' not found. Available: ['y']"), r"Available: \['y'\]"),
        (OSError(), "OSError"),
    ],
)
def test_what_the_hub_refuses_is_explained(monkeypatch, error, message):
    def fail(**arguments):
        raise error

    monkeypatch.setattr(hub, "load_dataset", fail)
    with pytest.raises(ValueError, match=f"nvidia/HelpSteer3 cannot be read .*{message}") as raised:
        iterate(HELPSTEER3)
    assert len(str(raised.value).splitlines()) == 1
    assert raised.value.__cause__ is error


def test_a_connection_lost_on_the_way_is_explained(monkeypatch):
    def rows():
        yield {"prompt": "p", "chosen": "c", "rejected": "r"}
        raise ConnectionError("lost")

    stream = IterableDataset.from_generator(rows)
    monkeypatch.setattr(hub, "load_dataset", lambda **arguments: stream)
    groups = iterate("some/set", streaming=True)
    assert next(groups).chosen == "c"
    with pytest.raises(ValueError, match=r"some/set cannot be read \(lost\); .*hf download"):
        next(groups)


def test_a_set_without_rows_is_refused(monkeypatch):
    stream = IterableDataset.from_generator(lambda: iter(()))
    monkeypatch.setattr(hub, "load_dataset", lambda **arguments: stream)
    with pytest.raises(ValueError, match="some/set/train: the file has no rows"):
        list(iterate("some/set", streaming=True))


# Loading


def test_what_is_asked_of_the_hub(monkeypatch):
    asked = []

    def load(**arguments):
        asked.append(arguments)
        return IterableDataset.from_generator(lambda: iter([compared(-1)]))

    monkeypatch.setattr(hub, "load_dataset", load)
    iterate(HELPSTEER3, subset="preference", streaming=True)
    iterate(TRL, split="test", revision="main")
    iterate("some/set", subset="hard")
    files = {"train": "preference/train.jsonl.gz"}
    assert asked == [
        {
            "path": HELPSTEER3,
            "revision": REVISION,
            "data_files": files,
            "split": "train",
            "streaming": True,
        },
        {"path": TRL, "revision": "main", "name": None, "split": "test", "streaming": False},
        {
            "path": "some/set",
            "revision": None,
            "name": "hard",
            "split": "train",
            "streaming": False,
        },
    ]


def test_a_stream_is_drawn_no_further_than_needed(monkeypatch):
    drawn = []

    def rows():
        for number in itertools.count():
            drawn.append(number)
            yield compared(-1, one=f"number {number}")

    stream = IterableDataset.from_generator(rows)
    monkeypatch.setattr(hub, "load_dataset", lambda **arguments: stream)
    groups = iterate(HELPSTEER3, subset="preference", streaming=True)
    assert drawn == []
    assert [next(groups).chosen for _ in range(3)] == ["number 0", "number 1", "number 2"]
    assert len(drawn) <= 5


def test_the_card_of_a_downloaded_folder_does_not_matter(tmp_path):
    """Downloaded folders hold a card whose configurations may name files that were left out."""
    write(tmp_path, "edit/train.jsonl.gz", edit())
    card = "- split: train\n    path: preference/train.jsonl.gz"
    (tmp_path / "README.md").write_text(
        f"---\nconfigs:\n- config_name: preference\n  default: true\n  data_files:\n  {card}\n---\n"
    )
    groups, _ = read(HELPSTEER3, tmp_path, subset="edit")
    assert [group.chosen for group in groups] == ["one!"]


def test_groups_and_their_fingerprint_stay_as_they_are(tmp_path):
    write(tmp_path, "preference/train.jsonl.gz", compared(-2), compared(1))
    write(tmp_path, "edit/train.jsonl.gz", edit(), edit("x", "x!"))
    groups, _ = read(HELPSTEER3, tmp_path)
    assert groups[0].cluster_id == hashlib.sha256(b"Why?").hexdigest()[:16]
    assert fingerprint(groups) == "38641e6b5e9468df"


def test_a_changed_file_is_read_anew(tmp_path):
    for answer in ("first", "second"):
        write(tmp_path, "preference/preference.jsonl.gz", helpsteer2(-1, answer))
        assert [group.chosen for group in iterate(HELPSTEER2, path=tmp_path)] == [answer]


def test_registry_is_complete():
    for name, source in HUB.items():
        assert name == source.name
        assert source.licence
        assert len(source.revision) == 40
        assert set(source.default) <= set(source.subsets)
        assert source.edits is None or source.edits in source.default
        for part in source.subsets.values():
            assert "train" in part.files
