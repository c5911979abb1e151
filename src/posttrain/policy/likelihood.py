"""Log-probabilities of given responses under a policy, for divergences between policies."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from posttrain.data.preferences import Message
from posttrain.models.float64 import computing_in_double
from posttrain.rows.rendering import read_responses


@torch.inference_mode()
def response_log_probabilities(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[Message]],
    responses: Sequence[str],
    *,
    batch_size: int = 64,
) -> np.ndarray:
    """Log-probability of each response, its end included, given its prompt, in nats."""
    rows, starts = [], []
    for prompt, response in zip(prompts, responses, strict=True):
        reading = read_responses(tokenizer, prompt, [response])
        rows.append(reading.rows[0])
        starts.append(reading.ends[0])
    values = np.zeros(len(rows))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    with computing_in_double(model):
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            longest = max(len(rows[i]) for i in members)
            ids = torch.zeros(len(members), longest, dtype=torch.long)
            counted = torch.zeros(len(members), longest, dtype=torch.bool)
            for place, i in enumerate(members):
                ids[place, : len(rows[i])] = torch.tensor(rows[i])
                counted[place, starts[i] : len(rows[i])] = True
            # Padding stands on the right, where no token that counts sees it.
            logits = model(input_ids=ids.to(model.device), use_cache=False).logits[:, :-1]
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
            of_tokens = wide.gather(-1, ids[:, 1:, None].to(wide.device))[..., 0].cpu()
            values[members] = (of_tokens * counted[:, 1:]).sum(1).numpy()
    return values
