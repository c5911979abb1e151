"""Shapes of prompts and responses that other people's files have, and what is noted about them."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from posttrain.data import conversations
from posttrain.data.messages import JOINED, BadRecord, Message
from posttrain.data.notes import Notes
from posttrain.data.preferences import COLUMNS, RankedGroup, from_record, to_record
from posttrain.data.reading import inspect_file, read_groups

QUESTION = {"role": "user", "content": "Why?"}
TRANSCRIPT = "\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: Why?\n\nAssistant:"
TURNS = (Message("user", "Hello"), Message("assistant", "Hi"), Message("user", "Why?"))
MESSAGES = [{"role": turn.role, "content": turn.content} for turn in TURNS]


def assistant(text, **fields):
    return {"role": "assistant", "content": text, **fields}


def read(**fields):
    """The group of a record, and what was noted about it."""
    notes = Notes()
    record = {"prompt": "Why?", "chosen": "good", "rejected": "bad", **fields}
    return from_record(record, where="here", notes=notes), notes


def refused(**fields):
    with pytest.raises(BadRecord) as caught:
        read(**fields)
    return caught.value


PLAIN = RankedGroup("here", TURNS, ("good", "bad"))


@pytest.mark.parametrize(
    "prompt",
    [
        TRANSCRIPT,
        TRANSCRIPT.strip(),
        TRANSCRIPT.removesuffix("\n\nAssistant:"),
        TRANSCRIPT + " ",
        TRANSCRIPT.replace("\n\n", "\n"),
        "\n\n" + TRANSCRIPT.strip().replace("\n\n", "\n"),
        TRANSCRIPT.replace("\n", "\r\n"),
    ],
)
@pytest.mark.parametrize("before", ["", " "])
def test_a_prompt_that_is_a_transcript_becomes_its_turns(prompt, before):
    group, notes = read(prompt=prompt, chosen=f"{before}good", rejected=f"{before}bad\n")
    assert group == PLAIN
    assert notes == Notes(readings={conversations.TURNS: 1})


def test_one_turn_after_an_empty_line_is_a_transcript():
    group, _ = read(prompt="\n\nHuman: Why?")
    assert group.prompt == (Message("user", "Why?"),)


@pytest.mark.parametrize(
    "prompt",
    [
        "Human: Hello\n\nAssistant: Hel",
        "Human: a history in ten maps, is it good?",
        "\n\nHuman: Hello\n\nAssistant:\n\nHuman: Why?\n\nAssistant:",
    ],
)
def test_a_prompt_that_only_starts_like_a_transcript_stays_and_is_pointed_out(prompt):
    group, notes = read(prompt=prompt)
    assert group.prompt == (Message("user", prompt),)
    assert notes.readings == {conversations.LIKE_TURNS: 1}


@pytest.mark.parametrize(
    "prompt",
    [
        "\n\nUser: Why?\n\nAssistant:",
        "User: Why?\nAI:",
        "A chat of a user and a model. USER: Why? ASSISTANT:",
        "HUMAN: Why?\n\nASSISTANT:",
        "human: Why?\nassistant:",
        "### Human: Why?",
        "**Human:** Why?\n**Assistant:**",
        "Human : Why?",
        "<human>: Why?\n<bot>:",
        "Q: Why?\r\nA:",
        "Customer: Why?\nAgent:",
        "### User\nWhy?\n### Assistant\n",
        "Below is a task.\n\n### Instruction:\nWhy?\n\n### Response:\n",
        "Be kind.\n\nHuman: Why?\n\nAssistant:",
        "System: Be kind.\n\nHuman: Why?",
        "<|im_start|>user\nWhy?<|im_end|>\n",
        "<|prompter|>Why?<|endoftext|>",
        "<｜User｜>Why?",
        "<s>[INST] Why? [/INST]",
        "<|start_header_id|>user<|end_header_id|>\n\nWhy?",
        "<bos><start_of_turn>user\nWhy?",
    ],
)
@pytest.mark.parametrize("form", [str, lambda text: [QUESTION | {"content": text}]])
def test_a_prompt_that_looks_like_a_transcript_of_another_kind_is_pointed_out(prompt, form):
    group, notes = read(prompt=form(prompt))
    assert group.prompt == (Message("user", prompt),)
    assert notes.readings == {conversations.LIKE_TURNS: 1}


@pytest.mark.parametrize(
    "prompt",
    [
        "Why, Human: or not?",
        "Question: why?",
        "Is 3 <4|5> 2? Note: the user: is asked, and the answer: is free.",
        "Model: X\nSystem: Y\nTime: 12:30:15",
        ": or :",
        "Let f = g <| x in F#, where a<b|c>d",
    ],
)
def test_a_prompt_that_mentions_turns_stays(prompt):
    group, notes = read(prompt=prompt)
    assert (group.prompt, notes) == ((Message("user", prompt),), Notes())


@pytest.mark.parametrize(
    ("prompt", "start"),
    [
        (TRANSCRIPT, TRANSCRIPT),
        (TRANSCRIPT.removesuffix("\n\nAssistant:"), TRANSCRIPT),
        (TRANSCRIPT, TRANSCRIPT.strip()),
        (TRANSCRIPT, TRANSCRIPT.replace("\n\n", "\n")),
        (MESSAGES, TRANSCRIPT),
    ],
)
def test_a_prompt_at_the_head_of_all_responses_is_removed(prompt, start):
    group, notes = read(prompt=prompt, chosen=f"{start} good", rejected=f"{start} bad")
    assert group == PLAIN
    assert notes.readings[conversations.REMOVED] == 1
    edited, _ = read(prompt=prompt, chosen=f"{start} good", rejected=f"{start} bad", edited="best")
    assert edited.responses == ("best", "good", "bad")


@pytest.mark.parametrize(
    ("prompt", "start"),
    [
        ("\n\nHuman: Hi  there\n\nAssistant:", "\n\nHuman: Hi there\n\nAssistant:"),
        ([{"role": "system", "content": "Be kind."}, *MESSAGES], TRANSCRIPT),
        (TRANSCRIPT, "\n\nAssistant:"),
        (TRANSCRIPT.removesuffix("\n\nAssistant:"), "Assistant:"),
    ],
)
def test_a_prompt_or_marker_that_stands_again_in_another_way_is_removed(prompt, start):
    group, notes = read(prompt=prompt, chosen=f"{start} good", rejected=f"{start} bad")
    assert group.responses == ("good", "bad")
    assert {conversations.REMOVED, conversations.MARKED} & notes.readings.keys()
    edited, _ = read(
        prompt=prompt, chosen=f"{start} good", rejected=f"{start} bad", edited=f"{start} best"
    )
    assert edited.responses == ("best", "good", "bad")


def test_a_marker_with_nothing_after_it_is_refused():
    error = refused(prompt=TRANSCRIPT, chosen="Assistant: good", rejected="Assistant:")
    assert error.field == "rejected"


@pytest.mark.parametrize(
    "start",
    [
        "User: Why?\nAssistant: ",
        "Assistant: ",
        "\n\nAssistant: ",
        "\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: Why?\n\nAssistant: ",
        "**AI:** ",
        "### assistant: ",
        "### Assistant\n",
        "<|im_start|>assistant\n",
    ],
)
def test_responses_that_begin_with_a_label_are_left_and_pointed_out(start):
    group, notes = read(chosen=f"{start}good", rejected=f"{start}bad")
    assert group.responses == (f"{start}good", f"{start}bad")
    assert notes.readings == {conversations.LABELLED: 1}
    # A single one may be what a model wrote, and was judged for.
    assert read(chosen=f"{start}good")[1] == Notes()


@pytest.mark.parametrize(
    "form",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n\n", "\n"),
        lambda text: text.replace("\n\n", "\r\n").strip(),
    ],
)
def test_whole_conversations_have_the_line_ends_of_their_system(form):
    group, _ = read(
        prompt=None, chosen=form(f"{TRANSCRIPT} good"), rejected=form(f"{TRANSCRIPT} bad")
    )
    assert group == PLAIN


def test_what_follows_the_response_in_a_transcript_stays():
    start = "\n\nHuman: Why?\n\nAssistant:"
    group, _ = read(chosen=f"{start} good\n\nHuman: Thanks", rejected=f"{start} bad")
    assert group.prompt == (Message("user", "Why?"),)
    assert group.responses == ("good\n\nHuman: Thanks", "bad")


def test_a_prompt_at_the_head_of_one_response_is_left_and_pointed_out():
    group, notes = read(prompt=TRANSCRIPT, chosen=f"{TRANSCRIPT} good")
    assert group.chosen == f"{TRANSCRIPT} good".strip()
    assert notes.readings == {conversations.TURNS: 1, conversations.LEFT: 1}


def test_conversations_beside_the_prompt_that_they_repeat():
    fields = {name: [*MESSAGES, assistant(name)] for name in ("chosen", "rejected", "edited")}
    group, notes = read(prompt=MESSAGES, **fields)
    assert (group.prompt, group.responses) == (TURNS, ("edited", "chosen", "rejected"))
    assert notes.readings == {conversations.REMOVED: 1}
    for prompt in (TRANSCRIPT, "Why?\n"):
        as_text, _ = read(prompt=prompt, **fields)
        assert as_text == group
    for name in ("chosen", "rejected"):
        alone, _ = read(prompt=MESSAGES, **fields | {name: name})
        assert alone == group
        short, _ = read(**{name: [QUESTION, assistant(f"{name}!")]})
        assert getattr(short, name) == f"{name}!"
    other = [{"role": "user", "content": "How?"}, assistant("good")]
    error = refused(prompt=MESSAGES, chosen=other)
    assert error.field == "chosen"
    assert "turns before it" in str(error)


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "count"),
    [
        ("What is 2 + 2?", "What is 2 + 2? 4", "What is 2 + 2?\n5", 1),
        ("What is 2 + 2?", "What is 2 + 2? 4", "5", 0),
        ("Hi", "History", "Hiking", 0),
        ("Hi", "Hi!", "Hi you", 1),
        ("Why  is\nit?", "Why is it? Because.", "Why\tis it?", 1),
        ("Why is it?", "Why is he?", "Why is", 0),
        ([*MESSAGES[:2], QUESTION], "Why? Because.", "Why? No.", 1),
    ],
)
def test_a_text_at_the_head_of_all_responses_is_left_and_pointed_out(
    prompt, chosen, rejected, count
):
    group, notes = read(prompt=prompt, chosen=chosen, rejected=rejected)
    assert group.responses == (chosen, rejected)
    assert notes.readings[conversations.LEFT] == count


def test_message_fields_that_hold_something_are_named():
    calls = [{"name": "look_up"}]
    prompt = [QUESTION | {"name": "Ann", "tool_calls": None, "weight": []}]
    _, notes = read(prompt=prompt, chosen=[assistant("good", tool_calls=calls)], tools="t")
    assert notes == Notes(columns={"tools": 1}, fields={"name": 1, "tool_calls": 1})


def test_a_pair_that_differs_only_in_what_is_not_used_is_no_same_text():
    same = [assistant("Let me see.", reasoning_content=f"{k}", name="A") for k in range(2)]
    error = refused(chosen=same[:1], rejected=same[1:])
    assert "only in reasoning_content, which is not used" in str(error)
    assert "the same text" not in str(error)
    assert "name" not in str(error)
    assert "the same text" in str(refused(chosen=same[:1], rejected=same[:1]))


@pytest.mark.parametrize(("content", "words"), [(None, "missing"), ("", "empty"), (" ", "empty")])
def test_no_content_beside_a_tool_call(content, words):
    error = refused(chosen=[assistant(content, tool_calls=[1])])
    assert error.field == "chosen[0].content"
    assert f"it is {words}, and tool_calls beside it is not used" in str(error)


def test_parts_of_text_are_joined():
    parts = [{"type": "text", "text": "go"}, {"type": "text", "text": "od", "image": None}]
    group, notes = read(prompt=[QUESTION | {"content": parts[:1]}], chosen=[assistant(parts)])
    assert (group.prompt, group.chosen) == ((Message("user", "go"),), "good")
    assert notes == Notes(readings={JOINED: 1})


@pytest.mark.parametrize(
    ("part", "field", "words"),
    [
        ({"type": "image", "image": "x"}, "chosen[0].content[0]", "not 'image'"),
        ("text", "chosen[0].content[0]", "of type 'text'"),
        ({"type": "text", "text": 3}, "chosen[0].content[0].text", "not a number"),
    ],
)
def test_other_parts_are_refused_with_their_type(part, field, words):
    error = refused(chosen=[assistant([part])])
    assert error.field == field
    assert words in str(error)


SPELLED = [QUESTION, assistant('It\'s "}\n {" there')]


def as_cell(form):
    # Numpy shows an array of objects without commas, as pandas writes it into a table.
    return {"json": json.dumps, "python": str, "numpy": lambda rows: str(np.array(rows))}[form](
        SPELLED
    )


@pytest.mark.parametrize("form", ["json", "python", "numpy"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_text_that_spells_out_messages_is_read_as_them(tmp_path, form, suffix):
    other = str([QUESTION, assistant("bad")])
    frame = pd.DataFrame({"prompt": ["Why?"], "chosen": [as_cell(form)], "rejected": [other]})
    path = tmp_path / f"mine.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    elif suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    result = read_groups(path)
    assert [group.prompt for group in result.groups] == [(Message("user", "Why?"),)]
    assert result.groups[0].responses == ('It\'s "}\n {" there', "bad")
    assert result.notes.readings[conversations.SPELLED_OUT] == 1


def test_a_table_of_arrays_as_pandas_writes_it(tmp_path):
    rows = {name: [np.array([QUESTION, assistant(name)])] for name in ("chosen", "rejected")}
    pd.DataFrame(rows).to_csv(tmp_path / "mine.csv")
    assert read_groups(tmp_path / "mine.csv").groups[0].responses == ("chosen", "rejected")


@pytest.mark.parametrize(
    "form",
    [
        lambda turns: json.dumps(json.dumps(turns)),
        lambda turns: repr(json.dumps(turns)),
        lambda turns: str(tuple(turns)),
        lambda turns: "\n".join(map(json.dumps, turns)),
    ],
)
def test_other_ways_to_spell_out_messages(form):
    turns = [QUESTION, assistant("good")]
    group, notes = read(chosen=form(turns))
    assert group.chosen == "good"
    assert notes.readings[conversations.SPELLED_OUT] == 1
    written = RankedGroup("here", (Message("user", "Why?"),), (form(turns), "bad"))
    assert from_record(to_record(written), where="here") == written


@pytest.mark.parametrize(
    "text",
    [
        "array([{'role': 'user', 'content': 'Why?'}], dtype=object)",
        "[array([{'role': 'user', 'content': 'Why?'}], dtype=object)]",
        "[{'w': nan, 'role': 'user', 'content': 'Why?'}]",
        "[{'ts': datetime.datetime(2024, 1, 1), 'role': 'user', 'content': 'Why?'}]",
        "[{'ok': true, 'role': 'user', 'content': 'Why?'}]",
        "[OrderedDict([('role', 'user'), ('content', 'Why?')])]",
        "dict_values([[{'role': 'user', 'content': 'Why?'}]])",
        '{"role": "user", "content": "Why?"}\n{"role": "assistant", "content": null}',
        '{"messages": [{"role": "user", "content": "Why?"}]}',
        '{"conversations": [{"from": "human", "value": "Why?"}]}',
    ],
)
def test_a_text_that_only_looks_like_messages_is_pointed_out(text):
    group, notes = read(chosen=text)
    assert group.chosen == text
    assert notes.readings == {conversations.LIKE_MESSAGES: 1}


@pytest.mark.parametrize(
    "text",
    [
        "[1] shows it",
        "The list [{'role': 'user', 'content': 'x'}] is one",
        '"My role" in content',
        '[{"answer": 4}]',
        "[] and content and role",
        '{"role": "a king"}',
        "[{",
        "[",
    ],
)
def test_other_texts_with_brackets_stay(text):
    group, notes = read(chosen=text)
    assert (group.chosen, notes) == (text, Notes())


@pytest.mark.parametrize(
    "text",
    [
        "[{'role': 'assistant', 'content': nan}]",
        "[{'role': 'assistant', 'content': 'cut o",
        "[{'content': array(['a'], dtype=object), 'role': 'assistant'}]",
    ],
)
def test_messages_that_cannot_be_read_are_refused(text):
    error = refused(chosen=text)
    assert error.field == "chosen"
    assert "to_json" in error.remedy


@pytest.mark.parametrize("form", [json.dumps, str])
def test_texts_that_spell_out_other_kinds_of_turns_are_refused_as_lists_are(form):
    turns = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "good"}]
    assert refused(chosen=form(turns)).field == refused(chosen=turns).field == "chosen[0].role"
    assert "an object" in str(refused(chosen=form(assistant("good"))))


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        (TRANSCRIPT, "good"),
        ("Why?", str(SPELLED)),
        ("Why?", "[{'role': 'assistant', 'content': 'cut o"),
        ("Why?", "\n\nHuman: Why?\n\nAssistant: good"),
    ],
)
def test_texts_that_would_be_read_otherwise_are_written_so_that_they_come_back(prompt, response):
    group = RankedGroup("a", (Message("user", prompt),), (response, f"{response} or not"))
    assert from_record(to_record(group), where="here") == group


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([TRANSCRIPT, str(SPELLED), "Why?", "assistant", "user", "text", "[{'role':"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "tool_calls"]) | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
records = st.dictionaries(
    st.sampled_from(COLUMNS) | st.text(max_size=5), json_values, max_size=8
) | st.fixed_dictionaries(dict.fromkeys(("prompt", "chosen", "rejected"), json_values))


@given(st.lists(records, min_size=1, max_size=3))
@example([{"chosen": {"role": "user", "content": 1}, "rejected": [[]], "prompt": [{}]}])
@settings(
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_record_becomes_a_group_or_is_refused(tmp_path, rows):
    lines = tmp_path / "any.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert len(list(inspect_file(lines))) == len(rows)
    names = list(dict.fromkeys(["prompt", "chosen", "rejected", *(n for row in rows for n in row)]))
    names = [name.encode(errors="replace").decode().replace("\r", "") for name in names]
    table = tmp_path / "any.csv"
    with table.open("w", encoding="utf-8", errors="replace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for row in rows:
            writer.writerow([str(row.get(name, "")) for name in names])
    for item in inspect_file(table):
        assert isinstance(item, RankedGroup | BadRecord)


def test_responses_that_would_be_misread_are_written_as_messages():
    asked = (Message("user", "Say it."),)
    odd = '[{"role": "user", "content": "x"}]'
    assert conversations.written_responses(asked, ["fine", "too"]) == ["fine", "too"]
    written = conversations.written_responses(asked, ["fine", odd])
    assert written == [[assistant("fine")], [assistant(odd)]]
