"""How far a single row moves the hidden states that scores are read from, before any training.

A fresh score head is a random direction w with independent entries. So the expected square of a
score's shift is proportional to the squared distance of the hidden states, and that of the score
difference of two responses to their squared distance. The ratio of both says how much of what
distinguishes two responses a layout changes, without drawing a head.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from posttrain.evaluation.bootstrap import Resamples, interval
from posttrain.models import reward_model
from posttrain.models.float64 import compute_in_double
from posttrain.rows.layout import LAYOUTS, Layout, lay_out
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.studies.packing.outcome import TESTS

#: Classes of the number of tokens between the prompt and a response: where each begins, by name.
RANGES = {"0": 0, "1-16": 1, "17-64": 17, "65-256": 65, "over 256": 257}


def distances(
    checkpoint: Path, groups: Sequence[TokenizedGroup], *, resamples: int = 1000
) -> pd.DataFrame:
    """Distance of each response's state from that in a separate row, by slot and what precedes it.

    Every response takes every slot once: each group is laid out in all rotations of its order.

    Returns:
        Columns ``layout``, ``by`` (``slot`` or ``preceding tokens``), ``value`` (the slot, or a
        range of tokens of other responses that stand between), ``responses`` (how many), and
        ``estimate``, ``low``, ``high``: the RMS distance over the RMS distance of two responses to
        one prompt.
    """
    model, tokenizer = reward_model.load(checkpoint)
    compute_in_double(model)
    assert isinstance(tokenizer.pad_token_id, int)
    rows: list[tuple[str, int, int, int, float]] = []
    # The yardstick of each group: sum of squared distances over its pairs, and their number.
    apart = np.zeros((len(groups), 2))
    for number, group in enumerate(groups):
        alone = _states(model, group, LAYOUTS["separate"], tokenizer.pad_token_id)
        between = torch.pdist(alone.double()).square()
        apart[number] = between.sum().item(), len(between)
        for name, layout in TESTS.items():
            if layout.is_exact:
                continue
            for order in _rotations(len(group.responses)):
                turned = group.in_order(order)
                moved = _states(model, turned, layout, tokenizer.pad_token_id) - alone[list(order)]
                before = 0
                for slot, shift in enumerate(moved.double().square().sum(dim=1).tolist()):
                    rows.append((name, number, slot + 1, before, shift))
                    before += len(turned.responses[slot])
    table = pd.DataFrame(rows, columns=["layout", "group", "slot", "preceding", "shift"])
    table["range"] = np.searchsorted([*RANGES.values()], table["preceding"], side="right") - 1
    draws = Resamples.draw(len(groups), 1, count=resamples)
    summary = []
    for by, column in (("slot", "slot"), ("preceding tokens", "range")):
        for (layout_name, value), part in table.groupby(["layout", column], sort=True):
            shifts = np.zeros((len(groups), 2))
            counted = part.assign(one=1.0)[["shift", "one"]].to_numpy()
            np.add.at(shifts, part["group"].to_numpy(), counted)
            measured = draws.measure(np.concatenate([shifts, apart], axis=1)[None], _relative)
            label = str(value) if by == "slot" else [*RANGES][int(value)]
            summary.append((layout_name, by, label, len(part), *interval(measured["distance"])))
    columns = ["layout", "by", "value", "responses", "estimate", "low", "high"]
    return pd.DataFrame(summary, columns=columns)


def _relative(sums: np.ndarray) -> dict[str, np.ndarray]:
    shift, count, apart, pairs = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"distance": np.sqrt((shift / count) / (apart / pairs))}


def _rotations(count: int) -> Iterator[tuple[int, ...]]:
    for start in range(count):
        yield tuple((start + step) % count for step in range(count))


@torch.no_grad()
def _states(
    model: PreTrainedModel, group: TokenizedGroup, layout: Layout, pad_token_id: int
) -> Tensor:
    return reward_model.response_states(model, lay_out([group], layout, pad_token_id=pad_token_id))
