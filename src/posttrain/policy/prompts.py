"""Where the prompts of rounds come from: drawn by the simulator, or taken from a list."""

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
#: Share of listed prompts that are kept for it.
EVALUATION_SHARE = 0.1


def simulated(seed: int) -> DrawPrompts:
    """Prompts of the simulator, no two of which end with the same turn."""

    def draw(purpose: str, count: int) -> list[Prompt]:
        rng = random.Random(f"{seed} {purpose}")
        drawn: dict[str, Prompt] = {}
        for _ in range(100 * count):
            if len(drawn) == count:
                break
            prompt = draw_task(rng).prompt
            drawn.setdefault(prompt[-1].content, prompt)
        return list(drawn.values())

    return draw


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
