"""A small world with known truth: tasks, responses with defects, annotators and editors.

Human preference data never tells how good a response really is. Here every response carries a
known *gold* helpfulness and a known *gold* safety, so a study can compare a reward model with the
best accuracy that any model could reach on such labels.

How a ranked group comes about:

1. A prompt is drawn from one of seven task kinds, sometimes as the last turn of a conversation.
2. Two responses are drawn, each a correct answer with zero or more :class:`Defect` applied, or a
   refusal. Gold quality is minus the sum of what its defects cost.
3. An annotator perceives the difference of gold quality plus standard logistic noise, prefers the
   response on the positive side (so the choice follows Bradley–Terry exactly) and rates the
   *strength* of the preference by how far from zero the perceived difference is.
4. On some groups an editor repairs the costliest defect of the chosen response, which gives
   edited > chosen > rejected.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import expit

from posttrain.preferences import Message, RankedGroup

Domain = Literal["helpfulness", "safety"]

ANIMALS = ("cat", "dog", "owl", "fox", "bee", "cow", "hen", "pig")
COLOURS = ("red", "blue", "green", "pink", "grey", "gold", "white", "black")
FOODS = ("rice", "soup", "cake", "bread", "corn", "plum", "beans", "fish")
TOOLS = ("saw", "drill", "rope", "nail", "brush", "ladder", "clamp", "shovel")
NOUNS = ANIMALS + FOODS + TOOLS
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FRENCH = dict(zip(
    ANIMALS + COLOURS,
    ("chat", "chien", "hibou", "renard", "abeille", "vache", "poule", "cochon",
     "rouge", "bleu", "vert", "rose", "gris", "dore", "blanc", "noir"),
    strict=True,
))  # fmt: skip
SAFE_GOALS = ("clean a window", "plant a tree", "fix a chair", "paint a door")
UNSAFE_GOALS = ("build a bomb", "steal a car", "forge a passport", "poison a well")
STEPS = ("plan", "measure", "gather", "prepare", "test", "finish")
INSULTS = ("stupid", "lazy", "useless")
OFF_TOPIC = ("weather", "football", "lottery", "horoscope")
HAZARDS = ("bleach", "petrol", "acid")
GARBLED = ("blorp", "znarf", "quib", "wuzzle")
OPENING = ("sure", ":")
REFUSAL = ("sorry", ",", "i", "can", "not", "help", "with", "that", ".")

#: What one occurrence of each defect costs, in units of gold quality. One unit of difference means
#: that an annotator prefers the better response with probability σ(1) = 0.73.
HELPFULNESS_COST = {
    "garbled word": 1.5,
    "wrong word": 1.5,
    "missing word": 1.2,
    "repeated word": 0.9,
    "insult": 1.8,
    "off topic": 1.4,
    "hazard": 0.6,
    "no opening": 0.5,
    "refusal": 4.0,
    "unsafe compliance": 0.0,
}
SAFETY_COST = {
    "garbled word": 0.0,
    "wrong word": 0.0,
    "missing word": 0.0,
    "repeated word": 0.0,
    "insult": 1.2,
    "off topic": 0.0,
    "hazard": 2.5,
    "no opening": 0.0,
    "refusal": 0.0,
    "unsafe compliance": 4.0,
}

#: Perceived differences at which a preference becomes slightly, better and significantly better.
STRENGTH_THRESHOLDS = (0.8, 2.0, 3.6)


@dataclass(frozen=True)
class Task:
    """A prompt with its correct answer.

    Attributes:
        kind: Name of the task kind, one of :data:`TASKS`.
        prompt: The conversation, ending with the user's turn.
        answer: The correct answer, word by word.
        unsafe: Whether the right thing to do, as far as safety goes, is to refuse.
    """

    kind: str
    prompt: tuple[Message, ...]
    answer: tuple[str, ...]
    unsafe: bool = False


@dataclass(frozen=True)
class Defect:
    """One flaw of a response.

    Attributes:
        kind: A key of :data:`HELPFULNESS_COST`.
        place: Index into the answer at which it applies (0 where it has none).
        word: The word it brings in, if any.
    """

    kind: str
    place: int = 0
    word: str = ""


@dataclass(frozen=True)
class Response:
    """A response as the simulator knows it: a task and the defects of the answer to it."""

    task: Task
    defects: tuple[Defect, ...]

    @property
    def text(self) -> str:
        """The response as a reader sees it."""
        kinds = {defect.kind for defect in self.defects}
        if "refusal" in kinds:
            return " ".join(REFUSAL)
        words = [[word] for word in self.task.answer]
        for defect in self.defects:
            if defect.kind in ("garbled word", "wrong word"):
                words[defect.place] = [defect.word]
            elif defect.kind == "missing word":
                words[defect.place] = []
            elif defect.kind == "repeated word":
                words[defect.place] = words[defect.place] * 3
        answer = [word for spot in words for word in spot]
        insults = [["you", "are", d.word, "."] for d in self.defects if d.kind == "insult"]
        asides = [["by", "the", "way", d.word, "."] for d in self.defects if d.kind == "off topic"]
        hazards = [["add", d.word, "."] for d in self.defects if d.kind == "hazard"]
        opening = [] if "no opening" in kinds else list(OPENING)
        tail = [word for part in (*insults, *asides, *hazards) for word in part]
        return " ".join([*opening, *answer, ".", *tail])

    def gold(self, domain: Domain) -> float:
        """Gold quality: minus the summed cost of the defects (0 is flawless)."""
        cost = HELPFULNESS_COST if domain == "helpfulness" else SAFETY_COST
        return -sum(cost[defect.kind] for defect in self.defects)

    def repaired(self, domain: Domain) -> "Response":
        """What an editor makes of it: the costliest defect is gone.

        A refusal of a harmless request becomes the correct answer; complying with an unsafe
        request becomes a refusal if the editor looks at safety.
        """
        cost = HELPFULNESS_COST if domain == "helpfulness" else SAFETY_COST
        if not self.defects:
            return self
        worst = max(self.defects, key=lambda defect: cost[defect.kind])
        if cost[worst.kind] == 0:
            return self
        if worst.kind == "unsafe compliance":
            return Response(self.task, (Defect("refusal"),))
        if worst.kind == "refusal":
            return _with_compliance(self.task, ())
        return Response(self.task, tuple(d for d in self.defects if d != worst))


@dataclass(frozen=True)
class SimulatedGroup:
    """A ranked group together with the truth that an annotator never sees.

    Attributes:
        ranked: The group as any data source would give it.
        responses: The responses behind ``ranked.responses``, in the same order.
        difference: Gold quality of chosen minus rejected (negative where the annotator erred).
    """

    ranked: RankedGroup
    responses: tuple[Response, ...]
    difference: float

    def gold(self, domain: Domain) -> tuple[float, ...]:
        """Gold quality of each response, in the order of ``ranked.responses``."""
        return tuple(response.gold(domain) for response in self.responses)


def _ask(*words: str) -> str:
    return " ".join(words)


def _copy(rng: random.Random) -> tuple[str, tuple[str, ...]]:
    words = tuple(rng.sample(NOUNS, 4))
    return _ask("repeat", ":", *words), words


def _reverse(rng: random.Random) -> tuple[str, tuple[str, ...]]:
    words = tuple(rng.sample(NOUNS, 3))
    return _ask("reverse", ":", *words), words[::-1]


def _sort(rng: random.Random) -> tuple[str, tuple[str, ...]]:
    places = rng.sample(range(len(NUMBERS)), 3)
    words = [NUMBERS[place] for place in places]
    return _ask("sort", ":", *words), tuple(NUMBERS[place] for place in sorted(places))


def _count(rng: random.Random) -> tuple[str, tuple[str, ...]]:
    word, times = rng.choice(NOUNS), rng.randint(1, 5)
    return _ask("count", ":", *([word] * times)), (NUMBERS[times - 1], word)


def _translate(rng: random.Random) -> tuple[str, tuple[str, ...]]:
    words = (rng.choice(COLOURS), rng.choice(ANIMALS))
    return _ask("translate", ":", *words), tuple(FRENCH[word] for word in words)


def _pick(rng: random.Random) -> tuple[str, tuple[str, ...]]:
    name, members = rng.choice((("animal", ANIMALS), ("food", FOODS), ("tool", TOOLS)))
    answer = rng.choice(members)
    others = [word for word in NOUNS if word not in members]
    words = [answer, *rng.sample(others, 2)]
    rng.shuffle(words)
    return _ask("pick", "the", name, ":", *words), ("the", name, answer)


def _explain(rng: random.Random) -> tuple[str, tuple[str, ...]]:
    goal = rng.choice(SAFE_GOALS + UNSAFE_GOALS)
    steps = tuple(rng.sample(STEPS, 3))
    # The steps are named in the prompt, so that a wrong step can be told from a right one.
    return _ask("use", *steps, "to", goal), (*steps, "to", *goal.split())


#: The task kinds: each draws the words of a user's turn and the correct answer.
TASKS: dict[str, Callable[[random.Random], tuple[str, tuple[str, ...]]]] = {
    "copy": _copy,
    "reverse": _reverse,
    "sort": _sort,
    "count": _count,
    "translate": _translate,
    "pick": _pick,
    "explain": _explain,
}

#: How many leading words of an answer carry content that a defect can spoil.
_SPOILABLE = {"count": 1, "explain": 3}


def draw_task(rng: random.Random, *, multi_turn: float = 0.25) -> Task:
    """Draw a task; with probability ``multi_turn`` it follows an earlier, answered turn."""
    kind = rng.choice(list(TASKS))
    question, answer = TASKS[kind](rng)
    prompt = [Message("user", question)]
    if rng.random() < multi_turn:
        earlier, reply = TASKS[rng.choice(["translate", "pick", "count"])](rng)
        text = Response(Task("earlier", (), reply), ()).text
        prompt = [Message("user", earlier), Message("assistant", text), *prompt]
    unsafe = kind == "explain" and question.split(" to ", 1)[1] in UNSAFE_GOALS
    return Task(kind, tuple(prompt), answer, unsafe)


def _with_compliance(task: Task, defects: tuple[Defect, ...]) -> Response:
    """A response that does what was asked, marked as unsafe where the request is."""
    return Response(task, (*defects, Defect("unsafe compliance")) if task.unsafe else defects)


def draw_response(rng: random.Random, task: Task) -> Response:
    """Draw a response: a refusal (half of the unsafe requests, few others) or a flawed answer."""
    if rng.random() < (0.5 if task.unsafe else 0.04):
        return Response(task, (Defect("refusal"),))
    spoilable = task.answer[: _SPOILABLE.get(task.kind, len(task.answer))]
    places = list(range(len(spoilable)))
    rng.shuffle(places)
    defects = []
    for kind, probability in (
        ("garbled word", 0.25),
        ("wrong word", 0.1),
        ("missing word", 0.1),
        ("repeated word", 0.15),
    ):
        if places and rng.random() < probability:
            place = places.pop()
            wrong = {
                "garbled word": rng.choice(GARBLED),
                "wrong word": _wrong_word(rng, task, place),
            }
            defects.append(Defect(kind, place, wrong.get(kind, "")))
    for kind, words, probability in (
        ("insult", INSULTS, 0.25),
        ("off topic", OFF_TOPIC, 0.25),
        ("hazard", HAZARDS, 0.12),
        ("no opening", ("",), 0.25),
    ):
        if rng.random() < probability:
            defects.append(Defect(kind, 0, rng.choice(words)))
    return _with_compliance(task, tuple(defects))


def _wrong_word(rng: random.Random, task: Task, place: int) -> str:
    """A word of the same kind as the right one, which is wrong at this place."""
    right = task.answer[place]
    kinds: tuple[Sequence[str], ...] = (NUMBERS, tuple(FRENCH.values()), STEPS, NOUNS)
    family = next((words for words in kinds if right in words), NOUNS)
    return rng.choice([word for word in family if word not in task.answer])


def annotate(
    rng: random.Random, first: Response, second: Response, domain: Domain
) -> tuple[bool, int]:
    """One annotator's judgement.

    Returns:
        Whether the first response is preferred, and the strength of the preference, 1 to 4.
    """
    uniform = rng.random()
    noise = float(np.log(uniform) - np.log1p(-uniform))
    perceived = first.gold(domain) - second.gold(domain) + noise
    strength = 1 + sum(abs(perceived) >= threshold for threshold in STRENGTH_THRESHOLDS)
    return perceived > 0, strength


def simulate(
    count: int,
    *,
    seed: int,
    domain: Domain = "helpfulness",
    edited_share: float = 0.0,
    multi_turn: float = 0.25,
) -> list[SimulatedGroup]:
    """Draw ranked groups.

    Args:
        count: Number of groups.
        seed: Seeds prompts, responses, annotators and editors.
        domain: The quality that annotators judge and editors repair.
        edited_share: Probability that a group with a repairable chosen response carries an edit.
        multi_turn: Share of prompts that are the last turn of a longer conversation.

    Returns:
        ``count`` groups. Groups with one prompt share their ``group``, as in every other source.

    Raises:
        ValueError: If a share is not between 0 and 1 or ``count`` is negative.
    """
    if count < 0 or not 0 <= edited_share <= 1 or not 0 <= multi_turn <= 1:
        raise ValueError(
            f"count must not be negative and shares must lie in [0, 1]; got count={count}, "
            f"edited_share={edited_share}, multi_turn={multi_turn}"
        )
    return list(_simulate(random.Random(seed), count, domain, edited_share, multi_turn))


def _simulate(
    rng: random.Random, count: int, domain: Domain, edited_share: float, multi_turn: float
) -> Iterator[SimulatedGroup]:
    for number in range(count):
        task = draw_task(rng, multi_turn=multi_turn)
        first, second = draw_response(rng, task), draw_response(rng, task)
        while first.text == second.text:
            second = draw_response(rng, task)
        prefers_first, strength = annotate(rng, first, second, domain)
        chosen, rejected = (first, second) if prefers_first else (second, first)
        responses = (chosen, rejected)
        edited = chosen.repaired(domain)
        wants_edit = rng.random() < edited_share
        if wants_edit and edited.text not in (chosen.text, rejected.text):
            responses = (edited, chosen, rejected)
        yield SimulatedGroup(
            ranked=RankedGroup(
                id=f"simulated-{number:06d}",
                prompt=task.prompt,
                responses=tuple(response.text for response in responses),
                strength=strength,
                # No explicit group: it defaults to the prompt, so repeated prompts stay together.
                domain=domain,
            ),
            responses=responses,
            difference=chosen.gold(domain) - rejected.gold(domain),
        )


def strength_probabilities(difference: np.ndarray) -> np.ndarray:
    """Probability of each judgement, given the gold difference Δ = gold(chosen) − gold(rejected).

    With logistic noise, P(perceived > t) = σ(Δ − t), so each strength is an interval of it.

    Args:
        difference: Gold differences, shape ``[n]``.

    Returns:
        Shape ``[n, 4]``: probability that the response called *chosen* is preferred with strength
        1 to 4. The probabilities of the opposite judgements are those of ``-difference``.
    """
    edges = np.array([0.0, *STRENGTH_THRESHOLDS, np.inf])
    above = expit(np.asarray(difference, dtype=float)[:, None] - edges)
    return above[:, :-1] - above[:, 1:]


def reachable_accuracy(groups: Sequence[SimulatedGroup]) -> dict[str, float]:
    """The best accuracy any reward model can expect on these pairs, over all and by strength.

    The best possible score is the gold quality itself. On a pair with gold difference Δ it agrees
    with a judgement of strength s with probability P(s | |Δ|) / (P(s | |Δ|) + P(s | −|Δ|)), and
    pairs of strength s arise in proportion to the denominator.

    Returns:
        Keys ``all`` and ``1`` to ``4``; values in [0.5, 1].
    """
    gap = np.abs(np.array([group.difference for group in groups]))
    right, wrong = strength_probabilities(gap), strength_probabilities(-gap)
    by_strength = right.sum(axis=0) / (right + wrong).sum(axis=0)
    return {"all": float(right.sum() / len(gap))} | {
        str(strength): float(value) for strength, value in enumerate(by_strength, start=1)
    }
