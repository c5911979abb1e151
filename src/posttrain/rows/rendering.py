"""What a model reads of a conversation: the chat template's text, as the tokenizer's ids.

Other programs render a whole conversation once and tokenise the text once. A score is theirs only
if the ids are. So they are never put together from parts that were tokenised apart: SentencePiece
would write a space before a response, and merges across newlines would be missed.
"""

import datetime
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from posttrain.data.preferences import Message
from posttrain.errors import UserError

#: How Jinja calls today's date, with a format that stands in the template.
_TODAY = re.compile(
    r"""strftime_now\s*\(\s*(?:format\s*=\s*)?(?P<quote>['"])(?P<format>[^'"\\]*)(?P=quote)\s*\)"""
)
#: Templates ask first whether there is such a function; comments do not call it.
_ASKS_FOR_TODAY = re.compile(r"strftime_now\s+is\s+(not\s+)?defined|\{#.*?#\}", re.DOTALL)
#: Parts of a conversation whose text a chat template may leave out, as counts call them.
_PARTS = {
    "system": "system messages",
    "user": "user turns",
    "assistant": "assistant turns of prompts",
    "response": "responses",
}
_ALTERED = "that the chat template leaves out or rewrites"
#: What is read to tell tokenizers apart, beside everything that they say of themselves.
_PROBES = (
    "Why? ",
    " Because\n\n",
    "\nİt’s naïve…\t42 ½ ﬁ  e\u0301 😀</s><unk>",
    "<|im_end|>[PAD]<pad>",
)


@dataclass(frozen=True)
class Reading:
    """A prompt with each of its responses, as token ids.

    Attributes:
        rows: For each response the ids of the whole conversation.
        ends: Where in its row each response begins: how many ids the row shares with the prompt's
            own rendering. Where a template writes the prompt otherwise once it is answered, that is
            less than the prompt, and what differs counts as the response's.
        altered: Parts whose text does not appear in the rendering: ``system``, ``user``,
            ``assistant`` (turns of the prompt) or ``response``, one entry each.
    """

    rows: tuple[tuple[int, ...], ...]
    ends: tuple[int, ...]
    altered: tuple[str, ...] = ()


def read_responses(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Message],
    responses: Sequence[str],
    *,
    skipped_end: int | None = None,
    vocabulary: int | None = None,
) -> Reading:
    """Render and tokenise a prompt with each response, as ``pipeline`` and TRL do.

    Args:
        tokenizer: Has a chat template.
        prompt: Turns up to the last user turn.
        responses: Any number of texts.
        skipped_end: Id that stock classes skip at the end of a row: their padding token, also where
            it was meant to end a response. What they do not read is no part of the row.
        vocabulary: How many ids the model has an embedding for.

    Raises:
        UserError: If there is no template, it raises an error, no token of the prompt is the same
            in all renderings, or an id has no embedding.
    """
    if not responses:
        raise UserError("there is nothing to read; give at least one response")
    turns = [{"role": turn.role, "content": turn.content} for turn in prompt]
    head = _ids(tokenizer, render(tokenizer, turns, add_generation_prompt=True))
    rows: list[tuple[int, ...]] = []
    ends: list[int] = []
    altered: list[str] = []
    for response in responses:
        conversation = [*turns, {"role": "assistant", "content": response}]
        text = render(tokenizer, conversation)
        left_out = _left_out([turn["content"] for turn in conversation], text)
        parts = [*(turn["role"] for turn in turns), "response"]
        # A turn of the prompt is one, however many responses it has.
        altered += [parts[place] for place in left_out if parts[place] == "response" or not rows]
        row = _ids(tokenizer, text)
        stop = len(row)
        while stop and row[stop - 1] == skipped_end:
            stop -= 1
        row = row[:stop]
        _check_ids(tokenizer, row, vocabulary)
        # A response is at least one token, the one that is scored.
        ends.append(min(_shared(head, row), len(row) - 1))
        rows.append(tuple(row))
    if min(ends) < 1:
        raise UserError(
            f"the chat template of {tokenizer.name_or_path!r} writes a prompt otherwise once it "
            "has a response, from its first token on, or nothing at all, so responses cannot share "
            "a prompt; use another template (--chat_template)"
        )
    return Reading(tuple(rows), tuple(ends), tuple(altered))


def render(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[dict[str, str]],
    *,
    add_generation_prompt: bool = False,
) -> str:
    """The text of a conversation in the tokenizer's chat format.

    Raises:
        UserError: If there is no template, or it raises an error.
    """
    if tokenizer.chat_template is None:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no chat template; give the format "
            "that its model was trained on (--chat_template FILE)"
        )
    try:
        text = tokenizer.apply_chat_template(
            list(turns), tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except Exception as error:  # a template can raise whatever Python and Jinja know
        roles = ", ".join(turn["role"] for turn in turns)
        raise UserError(
            f"the chat template of {tokenizer.name_or_path!r} cannot write a conversation of "
            f"{roles}: {error or type(error).__name__}; change the record, or give another "
            "template (--chat_template FILE)"
        ) from error
    return str(text)


def altered_counts(altered: Iterable[str]) -> Counter[str]:
    """How many parts of conversations a template leaves out or rewrites, in words.

    >>> altered_counts(["system", "response", "response"])
    Counter({'responses that the chat template leaves out or rewrites': 2, \
'system messages that the chat template leaves out or rewrites': 1})
    """
    return Counter(f"{_PARTS[part]} {_ALTERED}" for part in altered)


def pin_date(template: str, day: datetime.date) -> str:
    """The template with the day in place of today's, so that it writes the same text for ever.

    >>> pin_date("Today is {{ strftime_now('%d %b %Y') }}.", datetime.date(2024, 7, 26))
    "Today is {{ '26 Jul 2024' }}."

    Raises:
        UserError: If it asks for today's date in a form that stands elsewhere.
    """
    pinned = _TODAY.sub(lambda match: repr(day.strftime(match["format"])), template)
    if "strftime_now" in _ASKS_FOR_TODAY.sub("", pinned):
        raise UserError(
            "the chat template writes today's date in a form that is not written out where it is "
            "used, so it cannot be fixed and scores would change with the day; give a template "
            "with a fixed date (--chat_template FILE)"
        )
    return pinned


def tokenizer_hash(tokenizer: Any) -> str:
    """Changes with everything that decides how a conversation becomes token ids.

    That is the tokenizer's class, vocabulary, added and special tokens, options and chat template;
    and, whatever else there may be, how it reads a few texts.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = [
        type(tokenizer).__name__,
        sorted(tokenizer.get_vocab().items()) if backend is None else backend.to_str(),
        # Templates may name special tokens, such as eos_token, without spelling them out.
        {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        [[number, repr(token)] for number, token in sorted(tokenizer.added_tokens_decoder.items())],
        {name: value for name, value in tokenizer.init_kwargs.items() if name not in _PLACES},
        tokenizer.chat_template,
        [_ids(tokenizer, text) for text in _PROBES],
    ]
    return hashlib.sha256(json.dumps(content, default=repr, sort_keys=True).encode()).hexdigest()


#: Options that say where a tokenizer lies, not what it does; its template is the current one.
_PLACES = (
    "name_or_path", "is_local", "local_files_only", "vocab_file", "merges_file", "tokenizer_file",
    "special_tokens_map_file", "tokenizer_object", "added_tokens_decoder", "chat_template",
    "_commit_hash", "backend",
)  # fmt: skip


def _ids(tokenizer: Any, text: str) -> list[int]:
    # One text at a time: a batch would start threads, and processes that share them cannot fork.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two sequences have in common at their beginning."""
    for place, (first, second) in enumerate(zip(one, other, strict=False)):
        if first != second:
            return place
    return min(len(one), len(other))


def _left_out(contents: Sequence[str], text: str) -> list[int]:
    """Places of texts that do not appear in a rendering, each somewhere else in it."""
    missing = []
    # The longest first: a short one may stand in a longer one, too, and would be taken for it.
    for place in sorted(range(len(contents)), key=lambda place: -len(contents[place])):
        content = contents[place].strip()
        start = text.find(content)
        if start < 0:
            missing.append(place)
        else:
            text = f"{text[:start]}\0{text[start + len(content) :]}"
    return sorted(missing)


def _check_ids(tokenizer: Any, ids: Sequence[int], vocabulary: int | None) -> None:
    largest = max(ids, default=0)
    if vocabulary is not None and largest >= vocabulary:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise UserError(
            f"the token {token!r} of {tokenizer.name_or_path!r} has the id {largest}, and the "
            f"model has embeddings for ids below {vocabulary} only; take the tokenizer that "
            "belongs to the model, or resize its embeddings and train them"
        )
