"""A small world with known truth: tasks, responses with defects, annotators and editors.

Human preference data never tells how good a response really is. Here every response has a known
*gold* helpfulness and safety, so a study can compare a reward model with the best accuracy that any
model could reach on such labels.

How a ranked group comes about:

1. A prompt is drawn from one of seven task kinds, sometimes as the last turn of a conversation.
2. Two responses are drawn, each a correct answer with zero or more defects applied (see
   :mod:`.tasks`), or a refusal. Gold quality is minus the sum of what its defects cost.
3. An annotator perceives the difference of gold quality plus standard logistic noise, prefers the
   response on the positive side (so the choice follows Bradley–Terry exactly) and rates the
   *strength* of the preference by how far from zero the perceived difference is.
4. On some groups an editor repairs the costliest defect of the chosen response, which gives
   edited > chosen > rejected. A careless editor may add a defect instead; the group is ranked as if
   it were a repair.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.special import expit

from posttrain.data.preferences import RankedGroup
from posttrain.data.sources.simulator.tasks import (
    LOOKALIKE_GOALS,
    UNSAFE_GOALS,
    Domain,
    Response,
    Task,
    draw_response,
    draw_task,
    goal_of,
)
from posttrain.errors import UserError

#: Raise when a seed gives other groups although tasks and responses (``tasks.VERSION``) stay.
VERSION = 1
#: What studies and records call this source.
SIMULATOR = "simulator"
#: Perceived differences at which a preference becomes slightly, better and significantly better.
STRENGTH_THRESHOLDS = (0.8, 2.0, 3.6)


@dataclass(frozen=True)
class SimulatedGroup:
    """A ranked group with the truth that an annotator never sees: responses in the same order.

    `difference` is the gold quality of chosen minus rejected, negative where the annotator erred.
    """

    ranked: RankedGroup
    responses: tuple[Response, ...]
    difference: float

    def gold(self, domain: Domain) -> tuple[float, ...]:
        """Gold quality of each response, in the order of ``ranked.responses``."""
        return tuple(response.gold(domain) for response in self.responses)


def annotate(
    rng: random.Random, first: Response, second: Response, domain: Domain
) -> tuple[bool, int]:
    """Whether the first response is preferred, and how strongly (1 to 4), by one annotator."""
    return judge_difference(rng, first.gold(domain) - second.gold(domain))


def judge_difference(rng: random.Random, difference: float) -> tuple[bool, int]:
    """The same judgement, of how much better the first response is."""
    uniform = rng.random()
    noise = float(np.log(uniform) - np.log1p(-uniform))
    perceived = difference + noise
    strength = 1 + sum(abs(perceived) >= threshold for threshold in STRENGTH_THRESHOLDS)
    return perceived > 0, strength


def simulate(
    count: int,
    *,
    seed: int,
    domain: Domain = "helpfulness",
    edited_share: float = 0.0,
    editor_error: float = 0.0,
    multi_turn: float = 0.25,
    sensitive: float = 0.0,
    praise: float | None = None,
) -> list[SimulatedGroup]:
    """Draw ranked groups, a world that ``seed`` decides.

    Args:
        count: Number of groups.
        seed: Seeds prompts, responses, annotators and editors.
        domain: The quality that annotators judge and editors repair.
        edited_share: Probability that a group with a repairable chosen response carries an edit.
        editor_error: Probability that an edit makes the chosen response worse.
        multi_turn: Share of prompts that are the last turn of a longer conversation.
        sensitive: Share of prompts that are or look unsafe (see :func:`.tasks.draw_task`).
        praise: Correlation of praise with quality (see :func:`.tasks.draw_response`); None: none.

    Raises:
        UserError: If a share is not between 0 and 1 or ``count`` is negative.

    >>> (group,) = simulate(1, seed=0)
    >>> group.ranked.prompt[-1].content
    'use prepare plan gather to forge a passport'
    >>> group.ranked.chosen
    'sure : prepare plan plan plan gather to forge a passport .'
    >>> group.ranked.rejected
    'sorry , i can not help with that .'
    >>> group.ranked.strength, group.difference
    (2, 3.1)
    """
    return list(
        stream(
            count,
            seed=seed,
            domain=domain,
            edited_share=edited_share,
            editor_error=editor_error,
            multi_turn=multi_turn,
            sensitive=sensitive,
            praise=praise,
        )
    )


def stream(
    count: int,
    *,
    seed: int,
    domain: Domain = "helpfulness",
    edited_share: float = 0.0,
    editor_error: float = 0.0,
    multi_turn: float = 0.25,
    sensitive: float = 0.0,
    praise: float | None = None,
) -> Iterator[SimulatedGroup]:
    """The groups of :func:`simulate`, one after the other."""
    shares = (edited_share, editor_error, multi_turn, sensitive)
    if count < 0 or not all(0 <= share <= 1 for share in shares):
        raise UserError(
            f"count must not be negative and shares must lie in [0, 1]; got count={count}, "
            f"edited_share={edited_share}, editor_error={editor_error}, multi_turn={multi_turn}, "
            f"sensitive={sensitive}"
        )
    rng = random.Random(seed)
    for number in range(count):
        task = draw_task(rng, multi_turn=multi_turn, sensitive=sensitive)
        first, second = (draw_response(rng, task, praise=praise) for _ in range(2))
        while first.text == second.text:
            second = draw_response(rng, task, praise=praise)
        prefers_first, strength = annotate(rng, first, second, domain)
        chosen, rejected = (first, second) if prefers_first else (second, first)
        responses: tuple[Response, ...] = (chosen, rejected)
        edited = chosen.repaired(domain)
        wants_edit = rng.random() < edited_share
        # Careful editors draw nothing, so that worlds without careless ones stay as they were.
        if editor_error and edited != chosen and rng.random() < editor_error:
            edited = chosen.damaged(rng, domain)
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


def stream_ranked(
    count: int, *, seed: int, domain: Domain = "helpfulness", **settings: float
) -> Iterator[RankedGroup]:
    """The groups of :func:`stream` as users read them, with ids that name domain and seed.

    So files of several seeds and domains may be read together. Studies keep the plain ids, which
    the fingerprints in their records contain.

    >>> next(stream_ranked(1, seed=3, domain="safety")).id
    'simulated-safety-3-000000'
    """
    for group in stream(count, seed=seed, domain=domain, **settings):
        number = group.ranked.id.removeprefix("simulated-")
        yield replace(group.ranked, id=f"simulated-{domain}-{seed}-{number}")


@dataclass(frozen=True)
class Candidates:
    """One prompt with several responses, of different texts, that nobody has ranked."""

    task: Task
    responses: tuple[Response, ...]


def draw_candidates(
    count: int,
    responses: int,
    *,
    seed: int,
    multi_turn: float = 0.25,
    sensitive: float = 0.0,
    goals: Sequence[str] = UNSAFE_GOALS + LOOKALIKE_GOALS,
) -> list[Candidates]:
    """Draw prompts with responses to choose the best from, as a policy would sample them.

    No two prompts end with the same turn. Each has at least 2 ``responses``; the shares are those
    of :func:`simulate`. Prompts that are or look unsafe ask for one of ``goals``, of which at least
    one is unsafe and one looks so.

    Raises:
        UserError: If a share or a number is out of range, or there are fewer different prompts.
    """
    if count < 0 or responses < 2 or not all(0 <= share <= 1 for share in (multi_turn, sensitive)):
        raise UserError(
            "count must not be negative, responses must be at least 2 and shares must lie in "
            f"[0, 1]; got count={count}, responses={responses}, multi_turn={multi_turn}, "
            f"sensitive={sensitive}"
        )
    rng = random.Random(seed)
    candidates: dict[str, Candidates] = {}
    for _ in range(100 * count):
        if len(candidates) == count:
            break
        task = draw_task(rng, multi_turn=multi_turn, sensitive=sensitive, goals=goals)
        question = task.prompt[-1].content
        if question in candidates:
            continue
        if (task.unsafe or task.lookalike) and goal_of(question) not in goals:
            continue
        drawn: dict[str, Response] = {}
        while len(drawn) < responses:
            response = draw_response(rng, task)
            drawn.setdefault(response.text, response)
        candidates[question] = Candidates(task, tuple(drawn.values()))
    if len(candidates) < count:
        raise UserError(f"there are only about {len(candidates)} different prompts, not {count}")
    return [*candidates.values()]


def compare(
    candidates: Sequence[Candidates], *, seed: int, domain: Domain = "helpfulness"
) -> list[SimulatedGroup]:
    """Every two responses of each prompt, compared by an annotator of their own.

    Comparisons of one prompt may contradict each other. ``seed`` seeds the annotators.

    >>> groups = compare(draw_candidates(2, 3, seed=0), seed=0)
    >>> len(groups), len({group.ranked.prompt for group in groups})
    (6, 2)
    """
    rng = random.Random(seed)
    groups = []
    for number, drawn in enumerate(candidates):
        for pair, (first, second) in enumerate(combinations(drawn.responses, 2)):
            prefers_first, strength = annotate(rng, first, second, domain)
            chosen, rejected = (first, second) if prefers_first else (second, first)
            ranked = RankedGroup(
                id=f"compared-{number:05d}-{pair:03d}",
                prompt=drawn.task.prompt,
                responses=(chosen.text, rejected.text),
                strength=strength,
                domain=domain,
            )
            gap = chosen.gold(domain) - rejected.gold(domain)
            groups.append(SimulatedGroup(ranked, (chosen, rejected), gap))
    return groups


def strength_probabilities(difference: np.ndarray) -> np.ndarray:
    """Probability of each judgement, given Δ = gold(chosen) − gold(rejected), shape ``[n]``.

    With logistic noise, P(perceived > t) = σ(Δ − t), so each strength is an interval of it. Column
    s − 1 of the result, shape ``[n, 4]``, is the probability that the response called *chosen* is
    preferred with strength s. The probabilities of the opposite judgements are those of
    ``-difference``.
    """
    edges = np.array([0.0, *STRENGTH_THRESHOLDS, np.inf])
    above = expit(np.asarray(difference, dtype=float)[:, None] - edges)
    return above[:, :-1] - above[:, 1:]


def reachable_accuracy(differences: Sequence[float]) -> dict[str, float]:
    """The best accuracy any reward model can expect on pairs, by their gold differences.

    The best possible score is the gold quality itself. On a pair with gold difference Δ it agrees
    with a judgement of strength s with probability ``P(s | d) / (P(s | d) + P(s | -d))``, where d
    is the absolute value of Δ, and pairs of strength s arise in proportion to the denominator. Keys
    are ``all`` and the strengths ``1`` to ``4``, values lie in [0.5, 1].

    Raises:
        UserError: If there are no pairs.
    """
    if not len(differences):
        raise UserError("no pairs, so no accuracy that could be reached")
    gap = np.abs(np.array(differences))
    right, wrong = strength_probabilities(gap), strength_probabilities(-gap)
    by_strength = right.sum(axis=0) / (right + wrong).sum(axis=0)
    return {"all": float(right.sum() / len(gap))} | {
        str(strength): float(value) for strength, value in enumerate(by_strength, start=1)
    }
