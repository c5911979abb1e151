"""Where the parts of a model are: layers, what runs after them, embeddings, context, head.

Classes name them differently (``model.layers`` and ``norm``, ``transformer.h`` and ``ln_f``,
``model.decoder.layers`` with ``project_out``), so they are found by what they are and do.
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from posttrain.errors import UserError

#: Names of a longest position, in the order in which classes prefer them.
_CONTEXTS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")


def check_decoder(model: PreTrainedModel) -> None:
    """Refuse a classifier that does not read one score from the last token of a decoder.

    Raises:
        UserError: If it has an encoder, or no linear head called ``score``.
    """
    head: Any = getattr(model, "score", None)
    # peft wraps a head that it saved whole, and one that it adapts.
    head = getattr(head, "original_module", head)
    head = head.get_base_layer() if hasattr(head, "get_base_layer") else head
    if model.config.is_encoder_decoder or not isinstance(head, nn.Linear):
        raise UserError(
            f"{type(model).__name__}, which transformers has for this kind of model, does not read "
            "its score from a decoder's last token by a linear head (score); take a model with a "
            "decoder alone, such as a Llama, Qwen, Gemma or GPT-2"
        )


def layers_of(model: PreTrainedModel) -> tuple[nn.Module, str]:
    """The module that holds the layers of a model's decoder, and their name in it.

    Raises:
        UserError: If no list of as many modules as the model has layers is found.
    """
    body: Any = model.base_model
    decoder: nn.Module = body.get_decoder()
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    # The outermost one: experts within a layer may be as many.
    found = min(
        (
            name
            for name, module in decoder.named_modules()
            if isinstance(module, nn.ModuleList) and len(module) == count
        ),
        key=lambda name: name.count("."),
        default=None,
    )
    if found is None:
        raise UserError(
            f"the layers of {type(model).__name__} are not found, so none can be told apart; "
            "train all of it (--top_layers 0), or with --lora_rank"
        )
    owner, _, name = found.rpartition(".")
    return decoder.get_submodule(owner), name


@torch.no_grad()
def after_layers(model: PreTrainedModel) -> list[str]:
    """Names, beside the layers, of what runs after the last of them, such as the final norm.

    One token is computed to see it: names and places tell a final norm from one of the embeddings
    in some classes only.
    """
    owner, name = layers_of(model)
    last: Any = getattr(owner, name)[-1]
    beside = {child: child_name for child_name, child in owner.named_children()} | {last: name}
    ran: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, _: ran.append(beside[module]))
        for module in beside
    ]
    try:
        token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
        model.base_model(input_ids=token, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    end = ran.index(name)
    return [child for child in ran[end:] if child not in ran[: end + 1]]


def freeze_below(model: PreTrainedModel, top_layers: int) -> None:
    """Freeze all but the last layers, what follows them (the final norm) and the score head.

    ``top_layers`` says how many layers stay trainable; 0 freezes nothing.

    Raises:
        UserError: If the model has fewer layers, the number is negative, or its layers are not
            found or share weights.
    """
    if top_layers == 0:
        return
    owner, name = layers_of(model)
    layers: Any = getattr(owner, name)
    if not 0 < top_layers <= len(layers):
        raise UserError(f"top_layers={top_layers}, but the model has {len(layers)} layers")
    below = len(layers) - top_layers
    model.base_model.requires_grad_(False)
    for module in (*layers[below:], *map(owner.get_submodule, after_layers(model))):
        module.requires_grad_(True)
    if any(weight.requires_grad for weight in layers[:below].parameters()):
        raise UserError(
            f"layers of {type(model).__name__} share weights, so the last {top_layers} cannot be "
            "trained alone; train all of it (--top_layers 0), or with --lora_rank"
        )


def context_length(config: PreTrainedConfig) -> int | None:
    """Most tokens of a row, by a model's configuration; None where positions are relative (ALiBi).

    >>> from transformers import BloomConfig, GPT2Config
    >>> context_length(GPT2Config()), context_length(BloomConfig())
    (1024, None)
    """
    text: Any = config.get_text_config()
    if getattr(text, "alibi", False) or text.model_type == "bloom":
        return None
    found = (getattr(text, name, None) for name in _CONTEXTS)
    return next((length for length in found if isinstance(length, int) and length > 0), None)


def vocabulary_size(model: PreTrainedModel) -> int:
    """How many ids have an embedding: the rows of the input embedding."""
    embedding: Any = model.get_input_embeddings()
    return len(embedding.weight)
