"""How rows of data sets on the Hugging Face hub become ranked groups: one function per schema.

Every schema was read from the authors' card (licence, fields, an example row), not from the data;
what only the data could tell is marked *unverified*.

Rules that hold for all of them but :func:`convert_contract`:

* *Prompt*: chat messages. *Group*: a hash of the first user turn. So all rows of one prompt fall on
  one side of a split, and so do later turns of the same conversation, which hh-rlhf publishes as
  rows of their own (128 of the 2,178 openings in its harmless-base test file have several).
* *Domain* is what annotators judged, `helpfulness` or `safety`. Topics and languages are not kept.
* Texts stay as they are published, outer white space included (hh-rlhf excepted).

Dropped, and counted by reason: `empty response`, `identical responses` (equal apart from outer
white space), and what the functions below name. A row that breaks its schema is a
:class:`.data.messages.BadRecord`, which names the original's field.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from posttrain.data.columns import explain, missing, renamed
from posttrain.data.messages import (
    BadRecord,
    Message,
    check_prompt,
    check_text,
    show_value,
)
from posttrain.data.preferences import RankedGroup
from posttrain.data.sources.hub.rows import REMEDY, Place, messages, ranked, text, whole_number
from posttrain.data.sources.originals.hh_rlhf import ASSISTANT_TURN, shared_prompt
from posttrain.data.transcripts import MARKER
from posttrain.errors import UserError

Convert = Callable[[Mapping[str, Any], Place], Iterator[RankedGroup]]

ROLES = {"Human": "user", "User": "user", "Assistant": "assistant"}
# HelpSteer2 marks all turns but the first, which is the user's.
HELPSTEER2_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


def strength_of(preference: int) -> int | None:
    """Translate a preference of HelpSteer2 or HelpSteer3, −3 to 3, into strength; None for a tie.

    Both cards word the absolute value as 3 much better, 2 better, 1 slightly better, 0 about the
    same. The words decide, not the numbers: they are 4, 3 and 2 of our scale, which is Llama's. The
    cards have no word for its 1, negligibly better.
    """
    return abs(preference) + 1 if preference else None


def convert_hh_rlhf(row: Mapping[str, Any], place: Place, *, domain: str) -> Iterator[RankedGroup]:
    r"""Convert a row of Anthropic/hh-rlhf: two whole transcripts, `chosen` and `rejected`.

    The prompt is what :func:`.hh_rlhf.shared_prompt` finds, read as turns that begin with
    `\n\nHuman:` or `\n\nAssistant:`, without outer white space. No strength, no edits.

    Dropped: `no shared prompt`; `broken dialogue`, where a turn of the prompt is blank or its last
    one is not a person's. Neither occurs in the authors' harmless-base/test.jsonl.gz; the other
    files are *unverified*.
    """
    transcripts = text(row, "chosen"), text(row, "rejected")
    shared = shared_prompt(*transcripts)
    before, *turns = MARKER.split(shared.removesuffix(ASSISTANT_TURN))
    prompt = _alternating([turn.strip() for turn in turns])
    whole = prompt and prompt[-1].role == "user" and all(turn.content for turn in prompt)
    if not shared:
        place.dropped["no shared prompt"] += 1
    elif before.strip() or not whole:
        place.dropped["broken dialogue"] += 1
    else:
        chosen, rejected = (side.removeprefix(shared).strip() for side in transcripts)
        yield from ranked(place, prompt, (chosen, rejected), domain)


def convert_helpsteer2_preference(row: Mapping[str, Any], place: Place) -> Iterator[RankedGroup]:
    """Convert a row of HelpSteer2's `preference/preference.jsonl.gz`.

    Fields by the card: `split`, `prompt`, `response_1`, `response_2` and `preference_strength` (−3
    response 1 is much better … 3 response 2 is much better). One file holds both splits; a row of
    the other split is passed over, not dropped. That the validation split is spelled `val` stands
    in public code, not on the card.

    Dropped: `tie`. *Unverified*: whether the −100 of single annotators (neither response is
    acceptable), which users report of `all_preferences_unprocessed`, ever reaches
    `preference_strength`; it would be refused.
    """
    name = text(row, "split")
    split = {"train": "train", "val": "validation", "validation": "validation"}.get(name)
    if split is None:
        raise BadRecord(f"{show_value(name)} is neither 'train' nor 'val'", "split", REMEDY)
    if split == place.split:
        responses = text(row, "response_1"), text(row, "response_2")
        preference = whole_number(row, "preference_strength", -3, 3)
        yield from _compared(place, _helpsteer2_prompt(row), responses, preference)


def convert_helpsteer2_ratings(row: Mapping[str, Any], place: Place) -> Iterator[RankedGroup]:
    """Convert two consecutive rows of HelpSteer2's `train.jsonl.gz`; each field lists two values.

    By the card: `prompt`, `response` and five attributes from 0 to 4, of which `helpfulness` is
    used; rows 1 and 2, 3 and 4 … share their prompt, and so make preference pairs. The card
    recommends its `preference` annotations over them. Those judge the same responses, so training
    on both counts a comparison twice.

    *Strength* is the gap of the two ratings, 1 to 4, as it is the gap of ranks for `seeda`: no
    annotator put it into words. Dropped: `equal helpfulness`.
    """
    count = len(row.get("prompt") or ())
    pair = [{name: values[index] for name, values in row.items()} for index in range(count)]
    if count != 2 or pair[0]["prompt"] != pair[1]["prompt"]:
        raise BadRecord("it differs from that of the next row", "prompt", REMEDY)
    first, second = (whole_number(rated, "helpfulness", 0, 4) for rated in pair)
    responses = text(pair[0], "response"), text(pair[1], "response")
    prompt = _helpsteer2_prompt(pair[0])
    if first == second:
        place.dropped["equal helpfulness"] += 1
    else:
        best_first = responses if first > second else responses[::-1]
        yield from ranked(place, prompt, best_first, "helpfulness", abs(first - second))


def convert_helpsteer3_preference(row: Mapping[str, Any], place: Place) -> Iterator[RankedGroup]:
    """Convert a row of HelpSteer3's config `preference`, and join the edit of its chosen response.

    Fields by the card: `context` (chat messages), `response1`, `response2`, `overall_preference`
    (−3 response 1 is much better … 3 response 2 is much better).

    Each row of the config `edit` improves an `original_response` to a `context`, which by the card
    both come from the preference data. Where the original is the *chosen* response of a row, edited
    is better than chosen by the purpose of an edit, whose writer followed three critiques of the
    original; nobody compared the two. Where the original is the *rejected* response, or the row is
    a tie, nothing orders the edit against the others: such edits stay pairs of their own
    (:func:`convert_helpsteer3_edit`). An edit joins every row that it fits; of several edits of one
    response, the first joins.

    Dropped: `tie`. *Unverified*: how many edits find a row. Texts must agree apart from outer white
    space; if the two files differed more, there would be fewer triples and more pairs, still right.

    Do not test on the published validation split: Hong et al., "Training LLM Judges from Language
    Feedback via Position-Selective Self-Distillation", section 4.1, found 918 of about 1,553 of its
    rows in train too, and about 35 % of all rows repeated. Repeats are dropped when read.
    """
    prompt = messages(row, "context")
    responses = text(row, "response1"), text(row, "response2")
    preference = whole_number(row, "overall_preference", -3, 3)
    for group in _compared(place, prompt, responses, preference):
        edited = place.edits.find(group) if place.edits else None
        yield replace(group, responses=(edited, *group.responses)) if edited else group


def convert_helpsteer3_edit(row: Mapping[str, Any], place: Place) -> Iterator[RankedGroup]:
    """Convert a row of HelpSteer3's config `edit` into a pair, edited > original.

    Fields by the card: `context`, `original_response`, `edited_response`. Nobody rated the pair, so
    its strength is null. A row that has been joined to a preference is passed over, not dropped.

    The other configs rank nothing. `feedback` and `principle` describe single responses, and the
    card says that good and bad of `edit_quality` mean how closely an edit follows the critiques,
    not which is better.
    """
    prompt = messages(row, "context")
    responses = text(row, "edited_response"), text(row, "original_response")
    if not (place.edits and place.edits.joined(prompt, *responses)):
        yield from ranked(place, prompt, responses, "helpfulness")


def convert_pku_saferlhf(row: Mapping[str, Any], place: Place) -> Iterator[RankedGroup]:
    """Convert a row of PKU-Alignment/PKU-SafeRLHF into two groups, one for each judgement.

    By the card, responses are ranked twice, independently: by helpfulness and by harmlessness. The
    results are `better_response_id` and `safer_response_id`, 0 for `response_0` and 1 for
    `response_1`, in public code that reads the files (the card shows no row). The severity levels
    rate single responses, so strength is null.

    Dropped, as two comparisons: `empty prompt`. Users report 13 rows of 20,950 with an empty text
    in data/Alpaca3-8B/train.jsonl.
    """
    prompt = text(row, "prompt")
    responses = text(row, "response_0"), text(row, "response_1")
    for domain, field in (("helpfulness", "better_response_id"), ("safety", "safer_response_id")):
        best = whole_number(row, field, 0, 1)
        if prompt.strip():
            best_first = responses if best == 0 else responses[::-1]
            named = replace(place, id=f"{place.id}-{domain}")
            yield from ranked(named, (Message("user", prompt),), best_first, domain)
        else:
            place.dropped["empty prompt"] += 1


def convert_contract(row: Mapping[str, Any], place: Place) -> Iterator[RankedGroup]:
    """Read a row as a record of a file, which may have names of its own for columns.

    The row's own `id` gives way to its place, because nothing says that it is unique.

    Raises:
        UserError: If a column that is mapped is not there.
    """
    if problem := missing(row, place.columns):
        raise UserError(f"{place.id}: {'; remedy: '.join(problem)}")
    record = {**renamed(row, place.columns), "id": place.id}
    try:
        yield from place.reader(record, where="", notes=place.notes)
    except BadRecord as error:
        explain(error, record, place.columns)
        raise


def _compared(
    place: Place, prompt: tuple[Message, ...], responses: tuple[str, str], preference: int
) -> Iterator[RankedGroup]:
    """Rank two responses by a preference that is negative where the first is better."""
    strength = strength_of(preference)
    if strength is None:
        place.dropped["tie"] += 1
    else:
        best_first = responses if preference < 0 else responses[::-1]
        yield from ranked(place, prompt, best_first, "helpfulness", strength)


def _helpsteer2_prompt(row: Mapping[str, Any]) -> tuple[Message, ...]:
    opening, *turns = HELPSTEER2_TURN.split(check_text(row.get("prompt"), "prompt"))
    prompt = _alternating(["User", opening, *turns])
    check_prompt(prompt, "prompt")
    return prompt


def _alternating(turns: Sequence[str]) -> tuple[Message, ...]:
    """Read [role, text, role, text, …]."""
    pairs = zip(turns[::2], turns[1::2], strict=True)
    return tuple(Message(ROLES[role], content) for role, content in pairs)
