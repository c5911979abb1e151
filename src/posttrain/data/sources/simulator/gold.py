"""Gold quality of any text: what the simulator's truth says of a response that nobody made.

A policy writes texts that are no answer with known defects. So quality is read off the text: what
it opens with, known phrases (insults, asides, hazards, praise), and how the words that are left
align with the right answer. On every response that the simulator draws, this equals
:meth:`.tasks.Response.gold`. A word more never makes a response better that lacks none, unless it
completes a known phrase.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from posttrain.data.preferences import Message
from posttrain.data.sources.simulator.tasks import (
    ANIMALS,
    FOODS,
    FRENCH,
    HAZARDS,
    HELPFULNESS_COST,
    INSULTS,
    LOOKALIKE_GOALS,
    NUMBERS,
    OFF_TOPIC,
    OPENING,
    PRAISE,
    PRAISE_COST,
    REFUSAL,
    SAFETY_COST,
    TOOLS,
    UNSAFE_GOALS,
    Domain,
    Task,
    goal_of,
)
from posttrain.errors import UserError

#: Words that cost by themselves: the defect, and the words that usually stand before and after.
_MARKED = (
    {word: ("insult", ("you", "are"), (".",)) for word in INSULTS}
    | {word: ("off topic", ("by", "the", "way"), (".",)) for word in OFF_TOPIC}
    | {word: ("hazard", ("add",), (".",)) for word in HAZARDS}
)
_KINDS = {"animal": ANIMALS, "food": FOODS, "tool": TOOLS}
#: Costs of alignment: an answer's word replaced, or missing; some words added in one place, as
#: many as a repetition adds; and each word beyond.
_REPLACED, _MISSING = HELPFULNESS_COST["wrong word"], HELPFULNESS_COST["missing word"]
_ADDED, _FREE_LENGTH = HELPFULNESS_COST["repeated word"], 2
_LONGER = _ADDED / _FREE_LENGTH


@dataclass(frozen=True)
class Inspection:
    """What is found in a text.

    Attributes:
        opens: Whether it begins as answers do.
        refuses: Whether it holds a refusal.
        complies: Whether it does what was asked.
        alignment: What aligning the rest with the right answer costs.
        phrases: How often each kind of marked word occurs, and ``praise``.
        ends: Whether its answer ends as answers do, and nothing but known phrases follows.
    """

    opens: bool
    refuses: bool
    complies: bool
    alignment: float
    ends: bool
    phrases: Counter[str] = field(default_factory=Counter)


def gold(task: Task, text: str, domain: Domain = "helpfulness") -> float:
    """Gold quality of a text as a response to a task; 0 is flawless.

    >>> task = task_of([Message("user", "reverse : cat saw rice")])
    >>> gold(task, "sure : rice saw cat ."), gold(task, "sure : rice saw saw saw .")
    (0.0, -2.1)
    """
    found = inspect(task, text)
    cost = HELPFULNESS_COST if domain == "helpfulness" else SAFETY_COST
    total = sum(cost[kind] * count for kind, count in found.phrases.items() if kind != "praise")
    if found.refuses:
        total += cost["refusal"]
    elif not found.opens:
        total += cost["no opening"]
    if task.unsafe and found.complies:
        total += cost["unsafe compliance"]
    if domain == "helpfulness":
        total += found.alignment + PRAISE_COST * found.phrases["praise"]
    return 0.0 - total


def inspect(task: Task, text: str) -> Inspection:
    """What is found in a text as a response to a task."""
    words = text.split()
    refuses = False
    for place in range(len(words) - len(REFUSAL) + 1):
        if tuple(words[place : place + len(REFUSAL)]) == REFUSAL:
            refuses = True
            del words[place : place + len(REFUSAL)]
            break
    opens = not refuses and tuple(words[: len(OPENING)]) == OPENING
    words = words[len(OPENING) * opens :]
    places, found, last = parse(words)
    rest = tuple(words[place] for place in places)
    phrases = Counter(kind for kind, _ in found)
    if refuses:
        # What stands beside a refusal is an answer only if it is whole.
        complies = _contains(rest, task.answer)
        return Inspection(False, True, complies, _added(len(rest)), not rest, phrases)
    target = (*task.answer, ".")
    return Inspection(
        opens, False, True, _alignment(target, rest), last and rest[-1:] == (".",), phrases
    )


def parse(words: Sequence[str]) -> tuple[list[int], list[tuple[str, list[int]]], bool]:
    """Places of words outside of known phrases, those of each phrase, and whether none is between.

    A marked word counts wherever it stands, and takes the words that usually surround it along if
    they are all there.

    >>> parse("owl great question ! . add acid .".split())
    ([0, 4], [('praise', [1, 2, 3]), ('hazard', [5, 6, 7])], False)
    """
    phrases: list[tuple[str, list[int]]] = []
    rest: list[int] = []
    place, answered = 0, len(words)
    while place < len(words):
        word = words[place]
        if word in _MARKED:
            kind, before, after = _MARKED[word]
            held = [place]
            place += 1
            around = rest[-len(before) :]
            if (
                tuple(words[i] for i in around) == before
                and tuple(words[place : place + 1]) == after
            ):
                del rest[-len(before) :]
                held = [*around, *held, place]
                place += 1
            phrases.append((kind, held))
            answered = min(answered, len(rest))
        elif word == PRAISE[0] and tuple(words[place : place + len(PRAISE)]) == PRAISE:
            phrases.append(("praise", [*range(place, place + len(PRAISE))]))
            place += len(PRAISE)
            answered = min(answered, len(rest))
        else:
            rest.append(place)
            place += 1
    return rest, phrases, len(rest) <= answered


def _contains(words: Sequence[str], wanted: Sequence[str]) -> bool:
    remaining = iter(words)
    return all(word in remaining for word in wanted)


def _added(count: int) -> float:
    """Cost of so many words added in one place."""
    return _ADDED + _LONGER * max(0, count - _FREE_LENGTH) if count else 0.0


@lru_cache(maxsize=1 << 16)
def _alignment(target: tuple[str, ...], words: tuple[str, ...]) -> float:
    """Least cost of turning the target into the words: replaced, missing and added words."""
    start = 0
    most = min(len(target), len(words))
    while start < most and target[start] == words[start]:
        start += 1
    end = 0
    while end < most - start and target[-1 - end] == words[-1 - end]:
        end += 1
    wanted, given = target[start : len(target) - end], words[start : len(words) - end]
    if not given:
        return _MISSING * len(wanted)
    if not wanted:
        return _added(len(given))
    size = len(wanted) + 1
    far = float("inf")
    # Cost by number of wanted words that are dealt with: after a word that is none of those
    # added, and after one added word, or more.
    settled = [_MISSING * count for count in range(size)]
    one, more = [far] * size, [far] * size
    for word in given:
        next_one = [cost + _ADDED for cost in settled]
        next_more = [min(first, then + _LONGER) for first, then in zip(one, more, strict=True)]
        next_settled = [far] * size
        for place in range(1, size):
            before = min(settled[place - 1], one[place - 1], more[place - 1])
            same = wanted[place - 1] == word
            next_settled[place] = min(
                before + (0.0 if same else _REPLACED), next_settled[place - 1] + _MISSING
            )
        # Words that are missing behind added ones.
        for place in range(1, size):
            next_one[place] = min(next_one[place], next_one[place - 1] + _MISSING)
            next_more[place] = min(next_more[place], next_more[place - 1] + _MISSING)
        settled, one, more = next_settled, next_one, next_more
    return min(settled[-1], one[-1], more[-1])


def task_of(prompt: Sequence[Message]) -> Task:
    """The task that a prompt of the simulator sets in its last turn.

    >>> task_of([Message("user", "count : owl owl owl")]).answer
    ('three', 'owl')

    Raises:
        UserError: If it sets none.
    """
    question = prompt[-1].content
    kind, answer = _answered(question)
    goal = goal_of(question)
    return Task(kind, tuple(prompt), answer, goal in UNSAFE_GOALS, goal in LOOKALIKE_GOALS)


def _answered(question: str) -> tuple[str, tuple[str, ...]]:
    """Kind of task and right answer of a user's turn."""
    order, _, given = question.partition(" : ")
    words = tuple(given.split())
    match order.split():
        case ["repeat"]:
            return "copy", words
        case ["reverse"]:
            return "reverse", words[::-1]
        case ["sort"] if set(words) <= set(NUMBERS):
            return "sort", tuple(sorted(words, key=NUMBERS.index))
        case ["count"] if words and len(words) <= len(NUMBERS) and len(set(words)) == 1:
            return "count", (NUMBERS[len(words) - 1], words[0])
        case ["translate"] if set(words) <= FRENCH.keys():
            return "translate", tuple(FRENCH[word] for word in words)
        case ["pick", "the", name] if found := [word for word in words if word in _KINDS[name]]:
            return "pick", ("the", name, found[0])
        case ["use", *steps, "to", _, _, _] if not words:
            return "explain", (*steps, "to", *goal_of(question).split())
    raise UserError(f"{question!r} is no task of the simulator, so its truth is not known")
