"""Conversations: chat messages, and the shapes in which preference data writes them.

A prompt and its responses come as texts, as lists of chat messages, or as whole conversations that
end with the response. Each becomes the same messages here, or a :class:`BadRecord`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from posttrain.data import transcripts
from posttrain.data.messages import (
    BadRecord,
    Message,
    check_message,
    check_prompt,
    check_text,
    printable,
    read_messages,
    unused_fields,
)
from posttrain.data.notes import Notes
from posttrain.data.serialised import BrokenMessagesError, looks_like_messages, messages_in

# What is noted (see :class:`.notes.Notes`); each is one row's property.
SPELLED_OUT = "a text spells out a list of messages: read as messages"
LIKE_MESSAGES = "a text looks like messages written out, and is read as text"
TURNS = "the prompt is a transcript (Human:, Assistant:): read as turns"
LIKE_TURNS = "the prompt looks like a transcript that is not read as turns"
MARKED = "the responses begin with Assistant: after a prompt that is a transcript: removed"
LABELLED = "responses begin with the label of a turn: left there"
REMOVED = "the prompt stands in the responses again: removed from them"
# Not removed: "2 + 2 = 4" answers "2 + 2 =" in full, and nothing tells it from a repeated prompt.
LEFT = (
    "the responses begin with the prompt's text, apart from white space: left there, as answers "
    "may repeat their question; remove it if it is no part of them"
)


def read_prompt_and_responses(
    record: Mapping[str, Any], notes: Notes
) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """Prompt and responses, best first; :func:`.data.preferences.from_record` gives the shapes."""
    names = ["chosen", "rejected"]
    if record.get("edited") is not None:
        names.insert(0, "edited")
    values = {name: _spelled_out(record.get(name), name, notes) for name in names}
    messages, responses = read_shared_prompt(record.get("prompt"), values, notes)
    _check_differences(values, responses)
    return messages, tuple(responses.values())


def read_shared_prompt(
    prompt: Any, values: Mapping[str, Any], notes: Notes
) -> tuple[tuple[Message, ...], dict[str, str]]:
    """A prompt and any number of responses by field, each in any shape that `chosen` may have.

    What annotators judged, which is all but `edited`, decides how a record is read.
    """
    prompt = _spelled_out(prompt, "prompt", notes)
    values = {name: _spelled_out(value, name, notes) for name, value in values.items()}
    if prompt is None:
        messages, responses = _read_conversations(values, notes)
    elif all(_repeats_a_turn(prompt, values[name]) for name in _judged(values)):
        notes.readings[REMOVED] += 1
        messages, responses = _read_conversations(values, notes)
    elif isinstance(prompt, list | tuple):
        messages = read_messages(prompt, "prompt", notes)
        responses = _read_responses(values, messages, notes)
    else:
        messages, responses = _read_text_prompt(check_text(prompt, "prompt"), values, notes)
    if transcripts.looks_like_one(messages[-1].content):
        notes.readings[LIKE_TURNS] += 1
    judged = [responses[name] for name in _judged(responses)]
    if _begin_with_prompt(judged, messages):
        notes.readings[LEFT] += 1
    elif all(map(transcripts.starts_with_a_label, judged)):
        notes.readings[LABELLED] += 1
    return messages, {name: responses[name] for name in values}


def read_prompt(prompt: Any, notes: Notes) -> tuple[Message, ...]:
    """A prompt that stands alone, in any shape that one with responses may have."""
    prompt = _spelled_out(prompt, "prompt", notes)
    if isinstance(prompt, list | tuple):
        messages = read_messages(prompt, "prompt", notes)
    else:
        turns = transcripts.prompt_turns(check_text(prompt, "prompt"))
        notes.readings[TURNS] += turns is not None
        turns = [("user", prompt)] if turns is None else turns
        messages = tuple(Message(role, content) for role, content in turns)
    check_prompt(messages)
    return messages


def _judged(fields: Iterable[str]) -> list[str]:
    return [name for name in fields if name != "edited"]


def stands_as_it_is(prompt: str, responses: Sequence[str]) -> bool:
    """Whether a prompt and responses that are written as plain texts are read as those texts."""
    asked = (Message("user", prompt),)
    return transcripts.prompt_turns(prompt) is None and responses_stand_as_they_are(
        asked, (prompt, *responses)
    )


def responses_stand_as_they_are(prompt: tuple[Message, ...], responses: Sequence[str]) -> bool:
    """Whether responses beside a prompt, if written as plain texts, are read as those texts."""
    asked = _pairs(prompt)
    return not any(
        _may_spell_out(text) or transcripts.after_prompt(text, asked) is not None
        for text in responses
    )


def written_responses(prompt: tuple[Message, ...], responses: Sequence[str]) -> list[Any]:
    """Responses as they are read again: plain texts, or messages where these would be misread."""
    if responses_stand_as_they_are(prompt, responses):
        return list(responses)
    return [[{"role": "assistant", "content": text}] for text in responses]


def _read_conversations(
    values: Mapping[str, Any], notes: Notes
) -> tuple[tuple[Message, ...], dict[str, str]]:
    """Read responses that stand at the end of whole conversations, which must be the same."""
    first = _judged(values)[0]
    shared, response = _read_conversation(values[first], first, notes)
    responses = {first: response}
    for name, value in values.items():
        if name == "edited" and _is_only_a_response(value):
            responses |= _read_responses({name: value}, shared, notes)
        elif name != first:
            before, responses[name] = _read_conversation(value, name, notes)
            if before != shared:
                raise BadRecord(
                    f"its turns before the last assistant turn differ from those of '{first}'",
                    name,
                    "make the earlier turns identical, or give the prompt in a field 'prompt'",
                )
    return shared, responses


def _read_text_prompt(
    prompt: str, values: Mapping[str, Any], notes: Notes
) -> tuple[tuple[Message, ...], dict[str, str]]:
    turns = transcripts.prompt_turns(prompt)
    if turns is None:
        question = (Message("user", prompt),)
        return question, _read_responses(values, question, notes)
    notes.readings[TURNS] += 1
    messages = tuple(Message(role, content) for role, content in turns)
    responses = _read_responses(values, messages, notes)
    markers = {name: transcripts.ANSWER.match(text) for name, text in responses.items()}
    if all(markers[name] for name in _judged(markers)):
        notes.readings[MARKED] += 1
        for name, marker in markers.items():
            if marker:
                responses[name] = check_text(responses[name][marker.end() :], name)
    # As if they stood in the transcript, where white space separates a turn from its marker.
    return messages, {name: text.strip() for name, text in responses.items()}


def _read_responses(
    values: Mapping[str, Any], prompt: tuple[Message, ...], notes: Notes
) -> dict[str, str]:
    """Read responses that stand beside their prompt, or after a repetition of it."""
    responses: dict[str, str] = {}
    after: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, list | tuple):
            turns = read_messages(value, name, notes)
            responses[name] = _last_after(turns, prompt, name)
            if len(turns) > 1:
                notes.readings[REMOVED] += 1
        else:
            responses[name] = check_text(value, name)
            rest = transcripts.after_prompt(value, _pairs(prompt))
            if rest is not None:
                after[name] = check_text(rest, name)
    # In one response alone it may be what a model wrote, and was judged for.
    if after and all(name in after for name in _judged(responses)):
        notes.readings[REMOVED] += 1
        responses |= after
    return responses


def _last_after(turns: tuple[Message, ...], prompt: tuple[Message, ...], field: str) -> str:
    """The response of messages beside a prompt: one of the assistant, after the prompt or alone."""
    before, last = turns[:-1], turns[-1]
    if last.role == "assistant" and (not before or _pairs(before) == _pairs(prompt)):
        return last.content
    raise BadRecord(
        f"beside a prompt it must be one assistant message, not {', '.join(t.role for t in turns)} "
        "(unless the turns before it are the very ones of 'prompt')",
        field,
        "keep only the response, or remove 'prompt' if this is the whole conversation",
    )


def _pairs(messages: tuple[Message, ...]) -> list[tuple[str, str]]:
    return [(message.role, message.content.strip()) for message in messages]


def _begin_with_prompt(responses: Sequence[str], prompt: tuple[Message, ...]) -> bool:
    """Whether all begin with the last user turn, or one with all turns as a transcript."""
    asked = prompt[-1].content.strip()
    if all(_begins_with(response, asked) for response in responses):
        return True
    transcribed = [text for text in responses if transcripts.START.match(text)]
    return any(transcripts.after_prompt(text, _pairs(prompt)) is not None for text in transcribed)


def _begins_with(response: str, asked: str) -> bool:
    # By words, as white space may differ; the first one tells most texts apart.
    if not response.lstrip().startswith(asked[:40].split(maxsplit=1)[0]):
        return False
    *words, last = asked.split()
    found = response.split(maxsplit=len(words) + 1)[: len(words) + 1]
    if found[:-1] != words or not found[-1].startswith(last):
        return False
    # "Hi" is not repeated by "History".
    return not (last[-1].isalnum() and found[-1][len(last) :][:1].isalnum())


def _check_differences(values: Mapping[str, Any], responses: Mapping[str, str]) -> None:
    """Refuse responses that differ only in what is not used, and say in what."""
    for name, other in itertools.combinations(responses, 2):
        if responses[name].strip() != responses[other].strip():
            continue
        first, second = (unused_fields(_last(values[one])) for one in (name, other))
        differing = [key for key in {**first, **second} if first.get(key) != second.get(key)]
        if differing:
            raise BadRecord(
                f"it differs from '{other}' only in {', '.join(map(printable, differing))}, which "
                "is not used",
                name,
                "write what differs as text into content, or remove the record",
            )


def _last(value: Any) -> Any:
    return value[-1] if isinstance(value, list | tuple) else None


def _spelled_out(value: Any, field: str, notes: Notes) -> Any:
    """The messages that a text spells out, in whatever format it stands; or the value itself."""
    if not isinstance(value, str):
        return value
    try:
        messages = messages_in(value)
    except BrokenMessagesError:
        raise BadRecord(
            "it starts as a list of messages does and cannot be read as one",
            field,
            "write the table with to_json(lines=True, orient='records') or to_parquet, which keep "
            "lists",
        ) from None
    if messages is None:
        if looks_like_messages(value):
            notes.readings[LIKE_MESSAGES] += 1
        return value
    notes.readings[SPELLED_OUT] += 1
    return messages


def _may_spell_out(text: str) -> bool:
    try:
        return messages_in(text) is not None
    except BrokenMessagesError:
        return True


def _is_only_a_response(edited: Any) -> bool:
    """Whether an edit stands alone, as editors often store it, without the turns before it."""
    if isinstance(edited, list | tuple):
        return len(edited) == 1
    return isinstance(edited, str) and not transcripts.MARKER.match(edited)


def _repeats_a_turn(prompt: Any, value: Any) -> bool:
    """Whether a string prompt stands in the conversation too, as in UltraFeedback's files."""
    if not (isinstance(prompt, str) and isinstance(value, list | tuple) and len(value) > 1):
        return False
    turns = [turn for turn in value if isinstance(turn, Mapping) and turn.get("role") == "user"]
    texts = [turn.get("content") for turn in turns]
    return any(isinstance(text, str) and text.strip() == prompt.strip() for text in texts)


def _read_conversation(value: Any, field: str, notes: Notes) -> tuple[tuple[Message, ...], str]:
    """Split a whole conversation at its last assistant turn."""
    if isinstance(value, list | tuple):
        turns = read_messages(value, field, notes)
    else:
        turns = _read_transcript(check_text(value, field), field)
    if turns[-1].role != "assistant":
        raise BadRecord(
            f"without a prompt it must end with an assistant turn, not {turns[-1].role}",
            field,
            "add the response as the last assistant turn, or give a field 'prompt'",
        )
    if len(turns) == 1:
        raise BadRecord(
            "there is no prompt, neither in 'prompt' nor before the assistant turn",
            field,
            "give a field 'prompt', or put the user's turn before the assistant's",
        )
    check_prompt(turns[:-1], field)
    return turns[:-1], turns[-1].content


def _read_transcript(text: str, field: str) -> tuple[Message, ...]:
    """Read turns in the style of Anthropic's hh-rlhf files."""
    turns = transcripts.turns(text)
    if turns is not None and len(turns) == 1:  # alone it is no conversation
        turns = transcripts.turns(text, transcripts.LINE_MARKER)
    if turns is None:
        raise BadRecord(
            "without a prompt a text must start with '\\n\\nHuman:' and mark its turns with "
            "'\\n\\nHuman:' and '\\n\\nAssistant:'",
            field,
            "give a field 'prompt', or use a list of chat messages",
        )
    messages = tuple(Message(role, content) for role, content in turns)
    for index, message in enumerate(messages):
        check_message(message, field, index)
    return messages
