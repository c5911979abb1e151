"""Where the prompts of rounds come from: drawn by the simulator, or taken from a list."""

import hashlib
import random
from collections.abc import Callable, Sequence

from posttrain.data.preferences import Message
from posttrain.data.sources.simulator.tasks import draw_task
from posttrain.errors import UserError

Prompt = tuple[Message, ...]
#: Draws so many prompts for a purpose; the same ones whenever it is asked again.
DrawPrompts = Callable[[str, int], list[Prompt]]

#: The purpose whose prompts serve no other one.
EVALUATION = "evaluation"
#: Share of prompts that are kept for it.
EVALUATION_SHARE = 0.1


def simulated(seed: int) -> DrawPrompts:
    """Prompts of the simulator, no two of which end with the same turn.

    A tenth of all last turns, the same for every seed, is for evaluation alone.

    Raises:
        UserError: When more are asked for than there are.
    """

    def draw(purpose: str, count: int) -> list[Prompt]:
        rng = random.Random(f"{seed} {purpose}")
        drawn: dict[str, Prompt] = {}
        for _ in range(1000 * count):
            if len(drawn) == count:
                return list(drawn.values())
            prompt = draw_task(rng).prompt
            question = prompt[-1].content
            if _is_held(question) == (purpose == EVALUATION):
                drawn.setdefault(question, prompt)
        raise UserError(
            f"{count} prompts are needed for {purpose}, and the simulator has about {len(drawn)}; "
            "lower the number"
        )

    return draw


def _is_held(question: str) -> bool:
    """Whether a last turn is one of those kept for evaluation."""
    digest = hashlib.sha256(question.encode()).digest()
    return digest[0] < EVALUATION_SHARE * 256


def listed(prompts: Sequence[Prompt], seed: int) -> DrawPrompts:
    """Prompts of a list: a fixed tenth for evaluation, all others for the rest.

    Raises:
        UserError: When more are asked for than there are.
    """
    distinct = list(dict.fromkeys(prompts))
    random.Random(f"{seed} split").shuffle(distinct)
    held = max(1, round(EVALUATION_SHARE * len(distinct)))

    def draw(purpose: str, count: int) -> list[Prompt]:
        pool = distinct[:held] if purpose == EVALUATION else distinct[held:]
        if count > len(pool):
            raise UserError(
                f"{count} prompts are needed for {purpose}, and there are {len(pool)}; lower the "
                "number, or give more prompts"
            )
        return random.Random(f"{seed} {purpose}").sample(pool, count)

    return draw
