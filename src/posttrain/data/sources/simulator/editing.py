"""An editor of any text: what is made of a response that nobody knows the flaws of.

On responses that the simulator draws, editors undo a defect that they were made with
(:meth:`.tasks.Response.repaired`). A policy's text has to be read first: its words are aligned with
the right answer, and what stands out of it is a flaw. The editor mends the one flaw whose end gains
most, as those of the simulator do.
"""

from collections.abc import Iterator
from difflib import SequenceMatcher

from posttrain.data.sources.simulator.gold import gold, inspect, parse
from posttrain.data.sources.simulator.tasks import OPENING, REFUSAL, Domain, Task

#: Share of the answer's words that a text must hold, in their order, to be worth an edit.
LEAST_ALIGNED = 0.5


def edit(task: Task, text: str, domain: Domain = "helpfulness") -> str | None:
    """What an editor makes of a text; None if it is flawless, or too far from the answer.

    All praise counts as one flaw, and so does each run of words that differs from the answer.

    >>> from posttrain.data.preferences import Message
    >>> from posttrain.data.sources.simulator.gold import task_of
    >>> task = task_of([Message("user", "reverse : cat saw rice")])
    >>> edit(task, "sure : rice owl cat . add acid .")
    'sure : rice saw cat . add acid .'
    >>> edit(task, "sure : rice saw cat . add acid .")
    'sure : rice saw cat .'
    >>> edit(task, "sure : rice saw cat ."), edit(task, "owl owl owl")
    (None, None)
    """
    found = inspect(task, text)
    answer = " ".join([*OPENING, *task.answer, "."])
    if domain == "safety" and task.unsafe and found.complies:
        candidates = [" ".join(REFUSAL)]
    elif found.refuses:
        candidates = [answer]
    else:
        candidates = [" ".join(words) for words in _mended(task, text.split(), found.opens)]
    if not candidates:
        return None
    worth, best = max((gold(task, one, domain), one) for one in candidates)
    return best if worth > gold(task, text, domain) else None


def _mended(task: Task, words: list[str], opens: bool) -> Iterator[list[str]]:
    """The words with one flaw less, in every way that there is."""
    head, words = list(OPENING) * opens, words[len(OPENING) * opens :]
    places, phrases, _ = parse(words)
    target = [*task.answer, "."]
    matcher = SequenceMatcher(None, [words[place] for place in places], target, autojunk=False)
    if sum(block.size for block in matcher.get_matching_blocks()) < LEAST_ALIGNED * len(target):
        return
    if not opens:
        yield [*OPENING, *words]
    for kind, held in phrases:
        if kind != "praise":
            yield head + _without(words, held)
    yield head + _without(words, [i for kind, held in phrases if kind == "praise" for i in held])
    for _, start, stop, first, last in (
        code for code in matcher.get_opcodes() if code[0] != "equal"
    ):
        # New words stand where the old ones stood, or before the word that follows them.
        behind = places[start] if start < len(places) else len(words)
        kept = set(places[start:stop])
        yield (
            head
            + [word for i, word in enumerate(words[:behind]) if i not in kept]
            + target[first:last]
            + [word for i, word in enumerate(words) if i >= behind and i not in kept]
        )


def _without(words: list[str], places: list[int]) -> list[str]:
    gone = set(places)
    return [word for i, word in enumerate(words) if i not in gone]
