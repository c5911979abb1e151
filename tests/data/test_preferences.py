"""Ranked groups: their rules and their dictionary form."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.data.preferences import (
    COLUMNS,
    BadRecord,
    Message,
    Pair,
    RankedGroup,
    fingerprint,
    from_record,
    to_record,
)

QUESTION = (Message("user", "Why?"),)
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi"},
    {"role": "user", "content": "Why?"},
]
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)


@st.composite
def prompts(draw):
    system = [Message("system", draw(texts))] if draw(st.booleans()) else []
    turns = draw(
        st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), texts), max_size=3)
    )
    return (*system, *turns, Message("user", draw(texts)))


ranked_groups = st.builds(
    RankedGroup,
    id=texts,
    prompt=prompts(),
    responses=st.lists(texts, min_size=2, max_size=3, unique_by=str.strip).map(tuple),
    strength=st.none() | st.integers(1, 4),
    margin=st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5),
    cluster_id=st.just("") | texts,
    domain=st.none() | texts,
)


def make(**changes):
    return RankedGroup(**{"id": "a", "prompt": QUESTION, "responses": ("good", "bad"), **changes})


def record(**changes):
    fields = {"id": "a", "prompt": "Why?", "chosen": "good", "rejected": "bad", **changes}
    return {name: value for name, value in fields.items() if value is not ...}


def assistant(text):
    return {"role": "assistant", "content": text}


def read(fields):
    return from_record(fields, where="data.jsonl, line 17")


def test_two_responses_make_one_rated_pair():
    group = make(strength=3, margin=0.5)
    assert (group.chosen, group.rejected, group.edited, group.has_edit) == (
        "good",
        "bad",
        None,
        False,
    )
    assert group.pairs() == (Pair(0, 1, 3, 0.5),)


def test_three_responses_make_three_pairs_of_which_annotators_rated_one():
    group = make(responses=("best", "good", "bad"), strength=2, margin=1)
    assert (group.edited, group.chosen, group.rejected) == ("best", "good", "bad")
    assert group.has_edit
    assert group.pairs() == (Pair(0, 1), Pair(0, 2), Pair(1, 2, 2, 1.0))


def test_default_group_is_a_function_of_the_prompt_alone():
    first, second = make(), make(id="b", responses=("x", "y"))
    other = make(prompt=(Message("system", "Why?"), *QUESTION))
    assert first.cluster_id == second.cluster_id != other.cluster_id
    assert len(first.cluster_id) == 16
    assert make(cluster_id="mine").cluster_id == "mine"


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"id": " "}, "id", "it is empty"),
        ({"prompt": ()}, "prompt", "not a tuple of messages"),
        ({"prompt": [*QUESTION]}, "prompt", "not a tuple of messages"),
        (
            {"prompt": (*QUESTION, Message("assistant", "x"))},
            "prompt[1].role",
            "must end with a user",
        ),
        ({"responses": ("one",)}, "responses", "two or three"),
        ({"responses": ("1", "2", "3", "4")}, "responses", "two or three"),
        ({"responses": "ab"}, "responses", "two or three"),
        ({"responses": ("good", " good\n")}, "chosen", "same text as 'rejected'"),
        ({"responses": ("bad ", "good", "bad")}, "edited", "same text as 'rejected'"),
        ({"responses": ("good", "good ", "bad")}, "edited", "same text as 'chosen'"),
        ({"strength": 3.0}, "strength", "3.0 is not one of 1, 2, 3, 4"),
        ({"strength": True}, "strength", "True is not one of 1, 2, 3, 4"),
        ({"margin": float("inf")}, "margin", "inf is not a finite number"),
        ({"cluster_id": " "}, "group", "it is empty"),
        ({"domain": ""}, "domain", "it is empty"),
    ],
)
def test_a_group_refuses_what_breaks_its_rules(changes, field, problem):
    with pytest.raises(ValueError, match=r".") as caught:
        make(**changes)
    assert caught.value.field == field
    assert problem in str(caught.value)


def test_record_of_a_plain_prompt():
    group = make(
        responses=("best", "good", "bad"), strength=4, margin=2, cluster_id="g", domain="safety"
    )
    assert to_record(group) == {
        "id": "a",
        "prompt": "Why?",
        "chosen": "good",
        "rejected": "bad",
        "edited": "best",
        "strength": 4,
        "margin": 2.0,
        "group": "g",
        "domain": "safety",
    }
    assert tuple(to_record(group)) == COLUMNS


def test_record_of_a_conversation_has_lists_throughout():
    group = read(record(prompt=TURNS))
    written = to_record(group)
    assert written["prompt"] == TURNS
    assert (written["chosen"], written["rejected"]) == ([assistant("good")], [assistant("bad")])
    assert written["edited"] is None


def test_trl_accepts_records_in_both_forms():
    from trl.data_utils import is_conversational

    for fields, conversational in [(record(), False), (record(prompt=TURNS), True)]:
        written = to_record(read(fields))
        assert {is_conversational({name: written[name]}) for name in ("prompt", "chosen")} == {
            conversational
        }


@given(ranked_groups, st.booleans())
@settings(deadline=None)
def test_records_round_trip(group, as_messages):
    assert from_record(to_record(group, as_messages=as_messages), where="here") == group


TRANSCRIPT = "\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: Why?\n\nAssistant:"


@pytest.mark.parametrize(
    ("fields", "turns", "responses"),
    [
        (record(), ["Why?"], ("good", "bad")),
        (record(edited="best"), ["Why?"], ("best", "good", "bad")),
        (record(chosen=[assistant("good")]), ["Why?"], ("good", "bad")),
        (
            record(prompt=TURNS, edited=[assistant("best")]),
            ["Be brief.", "Hello", "Hi", "Why?"],
            ("best", "good", "bad"),
        ),
        (
            record(
                prompt=...,
                chosen=[*TURNS, assistant("good")],
                rejected=[*TURNS, assistant("bad")],
                edited=[*TURNS, assistant("best")],
            ),
            ["Be brief.", "Hello", "Hi", "Why?"],
            ("best", "good", "bad"),
        ),
        (
            record(
                prompt=None,
                chosen=[*TURNS, assistant("good")],
                rejected=[*TURNS, assistant("bad")],
                edited=[assistant("best")],
            ),
            ["Be brief.", "Hello", "Hi", "Why?"],
            ("best", "good", "bad"),
        ),
        (
            # UltraFeedback: the prompt is given, and repeated in the conversations.
            record(chosen=[*TURNS[3:], assistant("good")], rejected=[*TURNS[3:], assistant("bad")]),
            ["Why?"],
            ("good", "bad"),
        ),
        (
            record(prompt=..., chosen=TRANSCRIPT + " good", rejected=TRANSCRIPT + " bad\n"),
            ["Hello", "Hi", "Why?"],
            ("good", "bad"),
        ),
        (
            record(
                prompt=...,
                chosen=TRANSCRIPT.strip() + " good",
                rejected=TRANSCRIPT + " bad",
                edited="best",
            ),
            ["Hello", "Hi", "Why?"],
            ("best", "good", "bad"),
        ),
    ],
)
def test_every_shape_of_trl_preferences(fields, turns, responses):
    group = read(fields)
    assert [message.content for message in group.prompt] == turns
    assert group.responses == responses


def test_a_text_beside_a_prompt_is_never_split():
    fields = record(prompt="Human: a\n\nAssistant: b", chosen="\n\nHuman: x\n\nAssistant: y")
    group = read(fields)
    assert group.prompt == (Message("user", fields["prompt"]),)
    assert group.chosen == fields["chosen"]


def test_values_are_brought_to_one_form():
    group = read(record(id=5, strength=np.float64(3), margin=1, group=7, extra="ignored"))
    assert (group.id, group.strength, group.margin, group.cluster_id) == ("5", 3, 1.0, "7")
    assert type(group.strength) is int
    assert type(group.margin) is float
    assert from_record(record(id=...), where="here").id == "here"
    assert from_record(record(id=...), where="here", default_id="data-17").id == "data-17"


@pytest.mark.parametrize(
    ("fields", "field", "problem", "remedy"),
    [
        ([], None, "must be an object with named fields, not a list", "write one object"),
        (record(chosen=...), "chosen", "it is missing", "add it"),
        (record(rejected=None), "rejected", "it is missing", "add it"),
        (record(prompt=""), "prompt", "it is empty", "fill it in"),
        (record(prompt=3), "prompt", "it must be text, not a number", "string"),
        (record(chosen=" \n"), "chosen", "it is empty", "fill it in"),
        (record(chosen={"a": 1}), "chosen", "must be text, not an object", "string"),
        (record(rejected="a\ud800"), "rejected", "character 2 is half of a surrogate", "repair"),
        (record(rejected="good "), "chosen", "same text as 'rejected'", "remove the record"),
        (record(edited="bad\n"), "edited", "same text as 'rejected'", "set 'edited' to null"),
        (record(edited=""), "edited", "it is empty", "fill it in"),
        (record(strength=7), "strength", "7 is not one of 1, 2, 3, 4", "3 better"),
        (record(strength=0), "strength", "0 is not one of 1, 2, 3, 4", "null if unknown"),
        (record(strength=2.5), "strength", "2.5 is not one of 1, 2, 3, 4", "null if unknown"),
        (record(strength=float("nan")), "strength", "nan is not one of 1, 2, 3, 4", "null"),
        (record(strength="3"), "strength", "'3' is not one of 1, 2, 3, 4", "null if unknown"),
        (record(strength=True), "strength", "True is not one of 1, 2, 3, 4", "null if unknown"),
        (record(margin=float("nan")), "margin", "nan is not a finite number", "null for none"),
        (record(margin=10**400), "margin", "000... is not a finite number", "null for none"),
        (record(margin=False), "margin", "False is not a finite number", "null for none"),
        (record(margin="1"), "margin", "'1' is not a finite number", "null for none"),
        (record(group=""), "group", "it is empty", "fill it in"),
        (record(group=1.5), "group", "must be text, not a number", "string"),
        (record(id=True), "id", "must be text, not a truth value", "string"),
        (record(domain=" "), "domain", "it is empty", "fill it in"),
        (record(domain=["safety"]), "domain", "must be text, not a list", "string"),
        (record(prompt=[]), "prompt", "list of chat messages is empty", "at least one"),
        (record(prompt=["Hi"]), "prompt[0]", "must be an object, not text", "role"),
        (record(prompt=[{"content": "Hi"}]), "prompt[0].role", "it is missing", "use one of"),
        (
            record(prompt=[{"role": "human", "content": "Hi"}]),
            "prompt[0].role",
            "'human' is not a known role",
            "use one of system, user, assistant",
        ),
        (
            record(prompt=[*TURNS[:1], {"role": "user"}]),
            "prompt[1].content",
            "it is missing",
            "add it",
        ),
        (
            record(prompt=[{"role": "user", "content": [{"type": "text"}]}]),
            "prompt[0].content[0].text",
            "it is missing",
            "add it",
        ),
        (
            record(prompt=[*TURNS[1:2], *TURNS[:1], *TURNS[3:]]),
            "prompt[1].role",
            "may only come first",
            "move it",
        ),
        (
            record(prompt=TURNS[:3]),
            "prompt[2].role",
            "end with a user turn, not assistant",
            "remove",
        ),
        (record(prompt=TURNS[:1]), "prompt[0].role", "end with a user turn, not system", "remove"),
        (
            record(chosen=[TURNS[1], assistant("good")]),
            "chosen",
            "must be one assistant message, not user, assistant",
            "remove 'prompt'",
        ),
        (record(chosen=TURNS[1:2]), "chosen", "one assistant message, not user", "keep only"),
        (record(prompt=...), "chosen", "must start with '\\n\\nHuman:'", "give a field 'prompt'"),
        (
            record(prompt=..., chosen="Well.\n\nHuman: a\n\nAssistant: b"),
            "chosen",
            "must start with",
            "chat messages",
        ),
        (
            record(prompt=..., chosen="\n\nHuman: a"),
            "chosen",
            "must end with an assistant turn, not user",
            "last assistant turn",
        ),
        (
            record(prompt=..., chosen="\n\nHuman:\n\nAssistant: b"),
            "chosen[0].content",
            "it is empty",
            "fill it in",
        ),
        (
            record(prompt=..., chosen=[assistant("good")]),
            "chosen",
            "there is no prompt",
            "give a field 'prompt'",
        ),
        (
            record(prompt=..., chosen=[*TURNS[1:3], assistant("good")]),
            "chosen[1].role",
            "must end with a user turn",
            "remove",
        ),
        (
            record(
                prompt=...,
                chosen=[*TURNS, assistant("good")],
                rejected=[*TURNS[1:], assistant("bad")],
            ),
            "rejected",
            "turns before the last assistant turn differ from those of 'chosen'",
            "make the earlier turns identical",
        ),
        (
            record(
                prompt=...,
                chosen=TRANSCRIPT + "good",
                rejected=TRANSCRIPT + "bad",
                edited="\n\nHuman: Other?\n\nAssistant: best",
            ),
            "edited",
            "differ from those of 'chosen'",
            "make the earlier turns identical",
        ),
    ],
)
def test_bad_records_name_place_field_and_remedy(fields, field, problem, remedy):
    with pytest.raises(BadRecord) as caught:
        read(fields)
    error, message = caught.value, str(caught.value)
    assert error.field == field
    start = "data.jsonl, line 17" + (f", field '{field}'" if field else "")
    assert message.startswith(f"{start}: ")
    assert problem in error.problem
    assert remedy in error.remedy
    assert message.endswith(f"; remedy: {error.remedy}")
    assert len(message.splitlines()) == 1
    assert message.isprintable()


def test_bad_records_survive_pickling():
    error = BadRecord("wrong", "strength", "mend it", "data.jsonl, line 1", None, 1)
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert (copy.field, copy.line) == ("strength", 1)


def test_fingerprint_sees_content_and_order_only():
    groups = [make(), make(id="b", margin=1)]
    assert fingerprint(groups) == fingerprint(iter([make(), make(id="b", margin=1.0)]))
    assert fingerprint(groups) != fingerprint(groups[::-1])
    assert fingerprint(groups) != fingerprint([make(), make(id="b")])
    assert fingerprint([make()]) == "caa2809e63fce2fb"  # the same on every machine and version
