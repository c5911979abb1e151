"""Log-probabilities of given responses under a policy, for divergences between policies."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from posttrain.data.preferences import Message
from posttrain.models.float64 import computing_in_double
from posttrain.rows.rendering import read_responses


def response_log_probabilities(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[Message]],
    responses: Sequence[str],
    *,
    batch_size: int = 64,
) -> np.ndarray:
    """Log-probability of each response, its end included, given its prompt, in nats."""
    readings = [
        read_responses(tokenizer, prompt, [response])
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    rows = [(one.rows[0][: one.ends[0]], one.rows[0][one.ends[0] :]) for one in readings]
    return log_probabilities(model, rows, batch_size=batch_size)


@torch.inference_mode()
def log_probabilities(
    model: PreTrainedModel,
    rows: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    batch_size: int = 64,
) -> np.ndarray:
    """Log-probability of the second part of each row of tokens given the first, in nats."""
    values = np.zeros(len(rows))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
    with computing_in_double(model):
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            longest = sum(map(len, rows[members[-1]]))
            ids = torch.zeros(len(members), longest, dtype=torch.long)
            counted = torch.zeros(len(members), longest, dtype=torch.bool)
            for place, i in enumerate(members):
                before, after = rows[i]
                ids[place, : len(before) + len(after)] = torch.tensor([*before, *after])
                counted[place, len(before) : len(before) + len(after)] = True
            # Padding stands on the right, where no token that counts sees it.
            logits = model(input_ids=ids.to(model.device), use_cache=False).logits[:, :-1]
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
            of_tokens = wide.gather(-1, ids[:, 1:, None].to(wide.device))[..., 0].cpu()
            values[members] = (of_tokens * counted[:, 1:]).sum(1).numpy()
    return values
