"""Layers, context and head are found in classes that name them otherwise than a Llama."""

import pytest
import torch
from small_llama import SMALL
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    FalconConfig,
    LlamaConfig,
    MptConfig,
    T5Config,
)

from posttrain.models.architecture import (
    check_decoder,
    context_length,
    freeze_below,
    layers_of,
    vocabulary_size,
)

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
WIDE = {**SIZES, "intermediate_size": 24, "num_key_value_heads": 2, "max_position_embeddings": 64}
GPT = {"vocab_size": 40, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64}
OPT = {**SIZES, "ffn_dim": 24, "max_position_embeddings": 64, "word_embed_proj_dim": 8}
GEMMA3 = {
    "text_config": {**WIDE, "head_dim": 8},
    # Of as many layers as the language model has.
    "vision_config": {**WIDE, "image_size": 8, "patch_size": 4},
    "mm_tokens_per_image": 4,
}
#: Settings of a small model; its context; and what is trained beside the last layer and the head.
CLASSES = {
    "llama": (WIDE, 64, ["norm"]),
    "gemma3": (GEMMA3, 64, ["language_model.norm"]),
    "qwen3_moe": (
        # As many experts as layers.
        {**WIDE, "num_experts": 3, "moe_intermediate_size": 8, "num_experts_per_tok": 2},
        64,
        ["norm"],
    ),
    "phi": (WIDE, 64, ["final_layernorm"]),
    "gpt2": (GPT, 64, ["ln_f"]),
    "gpt_bigcode": (GPT, 64, ["ln_f"]),
    "gptj": ({**GPT, "rotary_dim": 4}, 64, ["ln_f"]),
    "gpt_neo": (
        {**WIDE, "num_layers": 3, "num_heads": 2, "attention_types": [[["global"], 3]]},
        64,
        ["ln_f"],
    ),
    "gpt_neox": (WIDE, 64, ["final_layer_norm"]),
    "opt": (OPT, 64, ["decoder.final_layer_norm", "decoder.project_out"]),
    "falcon": (WIDE, 64, ["ln_f"]),
    "bloom": ({**SIZES, "n_head": 2}, None, ["ln_f"]),
    "mpt": (
        {"vocab_size": 40, "d_model": 16, "n_layers": 3, "n_heads": 2, "max_seq_len": 64},
        64,
        ["norm_f"],
    ),
    "biogpt": (WIDE, 64, ["layer_norm"]),
    "jamba": (
        {**WIDE, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 1},
        64,
        ["final_layernorm"],
    ),
}


def small(kind):
    settings, *_ = CLASSES[kind]
    config = AutoConfig.for_model(kind, num_labels=1, **settings)
    config.pad_token_id = config.get_text_config().pad_token_id = 0
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.mark.parametrize("kind", CLASSES)
def test_the_last_layer_what_follows_it_and_the_head_are_trained(kind):
    model = small(kind)
    _, context, after = CLASSES[kind]
    check_decoder(model)
    assert (context_length(model.config), vocabulary_size(model)) == (context, 40)
    freeze_below(model, 1)
    owner, name = layers_of(model)
    modules = {module: path for path, module in model.base_model.named_modules()}
    top = f"{modules[owner]}.{name}.2.".lstrip(".")
    trained = {path for path, weight in model.base_model.named_parameters() if weight.requires_grad}
    beside = {path.rpartition(".")[0] for path in trained if not path.startswith(top)}
    assert sorted(beside) == after
    assert {path for path in trained if path.startswith(top)} == {
        path for path, _ in model.base_model.named_parameters() if path.startswith(top)
    }
    assert model.score.weight.requires_grad
    # And all of it has a part in the score.
    model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits.sum().backward()
    weights = dict(model.base_model.named_parameters())
    assert all(weights[path].grad is not None for path in trained)


def test_layers_that_share_weights_are_not_trained_apart():
    model = small("llama")
    model.model.layers[0].mlp = model.model.layers[2].mlp
    with pytest.raises(ValueError, match="layers of LlamaForSequenceClassification share weights"):
        freeze_below(model, 1)


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(**SIZES, intermediate_size=16, num_labels=1),
        T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2),
    ],
    ids=lambda config: config.model_type,
)
def test_a_class_without_a_decoder_alone_is_refused_by_name(config):
    model = AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(ValueError, match=f"{type(model).__name__}, .* take a model with a decoder"):
        check_decoder(model)


def test_a_context_is_limited_where_positions_are():
    assert context_length(FalconConfig(alibi=True)) is None
    assert context_length(FalconConfig(alibi=False, max_position_embeddings=9)) == 9
    # It computes its relative positions up to this length only.
    assert context_length(MptConfig(max_seq_len=7)) == 7
    assert context_length(LlamaConfig(**SMALL, max_position_embeddings=5)) == 5
