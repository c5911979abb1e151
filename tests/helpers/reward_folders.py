"""Folders of reward models that have learnt a little, without any training."""

import torch

from posttrain.models import reward_model
from posttrain.models.reward_model import response_states, score_head
from posttrain.rows.layout import LAYOUTS, lay_out
from posttrain.rows.tokenization import tokenize_group


def save_leaning(checkpoint, folder, groups, *, size=1.0, context=None):
    """Save a reward model that leans to what was chosen.

    Its head is the mean difference of what it reads at chosen and at rejected responses.

    Args:
        checkpoint: A language model.
        folder: Where to save it.
        groups: The groups of which it learns.
        size: Norm of the head.
        context: Most tokens that it takes; default the checkpoint's.
    """
    model, tokenizer = reward_model.load(checkpoint)
    tokens = [tokenize_group(tokenizer, group, keep_equal=True) for group in groups]
    with torch.no_grad():
        batch = lay_out(tokens, LAYOUTS["separate"], pad_token_id=tokenizer.pad_token_id)
        states = response_states(model, batch).split([len(one.responses) for one in groups])
        mean = sum(one[-2] - one[-1] for one in states)
        score_head(model).weight[0] = size * mean / mean.norm()
    if context is not None:
        model.config.max_position_embeddings = context
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
