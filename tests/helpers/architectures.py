"""Configurations of tiny models of many architectures."""

from itertools import product
from typing import Any

#: All pairs of some letters.
WORDS = ["".join(pair) for pair in product("abcdefgh", repeat=2)]
VOCABULARY = 400
#: A sliding window, and the boundary of rotary frequencies: shorter than rows.
WINDOW, BOUNDARY = 16, 40

BASE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "num_labels": 1,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
    # What is drawn at random would be drawn otherwise in other rows.
    **dict.fromkeys(
        (
            "dropout",
            "attention_dropout",
            "resid_pdrop",
            "embd_pdrop",
            "attn_pdrop",
            "hidden_dropout",
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
        ),
        0.0,
    ),
    # Larger than usual: with nearly even attention it would hardly matter who sees whom.
    "initializer_range": 0.2,
}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
QWEN_EXPERTS = EXPERTS | {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}
DEEPSEEK = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 8, "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1, "moe_intermediate_size": 32,
}  # fmt: skip
GATED_DELTA = {
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
GEMMA = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": WINDOW}
VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 16, "patch_size": 8,
}  # fmt: skip


def rope(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0} | parameters}


LLAMA3 = rope(
    "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=64,
)  # fmt: skip
LONGROPE = {"original_max_position_embeddings": BOUNDARY} | rope(
    "longrope", short_factor=[1.0] * 4, long_factor=[4.0] * 4,
    original_max_position_embeddings=BOUNDARY,
)  # fmt: skip

#: By name, the type of a model and its settings beside :data:`BASE`.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("llama", {}),
    "Llama, tied embeddings": ("llama", {"tie_word_embeddings": True}),
    "Llama, llama3 rotary": ("llama", LLAMA3),
    "Llama, YaRN": ("llama", rope("yarn", factor=4.0, original_max_position_embeddings=64)),
    "Llama, dynamic NTK": ("llama", rope("dynamic", factor=4.0)),
    "Qwen 2": ("qwen2", {}),
    "Qwen 2, sliding window": (
        "qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "Qwen 2, experts": ("qwen2_moe", QWEN_EXPERTS),
    "Qwen 3": ("qwen3", {"head_dim": 8}),
    "Qwen 3, experts": ("qwen3_moe", QWEN_EXPERTS | {"head_dim": 8}),
    "Qwen 3-Next": ("qwen3_next", QWEN_EXPERTS | GATED_DELTA | {"head_dim": 8}),
    "Mistral": ("mistral", {"sliding_window": None}),
    "Mistral, sliding window": ("mistral", {"sliding_window": WINDOW}),
    "Ministral": ("ministral", {"sliding_window": WINDOW, "head_dim": 8}),
    "Mixtral": ("mixtral", EXPERTS),
    "Gemma": ("gemma", {"head_dim": 8}),
    "Gemma 2": ("gemma2", GEMMA | {"attn_logit_softcapping": 5.0}),
    "Gemma 3, text": ("gemma3_text", GEMMA),
    "Gemma 3, with vision": (
        "gemma3",
        {"text_config": BASE | GEMMA, "vision_config": VISION, "mm_tokens_per_image": 4},
    ),
    "Gemma 3, both sides": ("gemma3_text", GEMMA | {"use_bidirectional_attention": True}),
    "Phi": ("phi", {}),
    "Phi-3": ("phi3", {}),
    "Phi-3, LongRoPE": ("phi3", LONGROPE),
    "Phi-3.5, experts": ("phimoe", EXPERTS),
    "GPT-2": ("gpt2", {}),
    "GPT-Neo": (
        "gpt_neo", {"attention_types": [[["global", "local"], 1]], "window_size": WINDOW},
    ),
    "GPT-NeoX": ("gpt_neox", {}),
    "GPT-J": ("gptj", {"rotary_dim": 4}),
    "gpt-oss": ("gpt_oss", EXPERTS | {"head_dim": 8, "sliding_window": WINDOW}),
    "OPT": ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "BioGPT": ("biogpt", {}),
    "Falcon": ("falcon", {"alibi": False}),
    "Falcon, ALiBi": ("falcon", {"alibi": True}),
    "BLOOM": ("bloom", {}),
    "MPT": ("mpt", {"max_seq_len": 256}),
    "StableLM": ("stablelm", {}),
    "StarCoder 2": ("starcoder2", {"sliding_window": WINDOW}),
    "SmolLM 3": ("smollm3", {"no_rope_layer_interval": 2}),
    "OLMo": ("olmo", {}),
    "OLMo 2": ("olmo2", {}),
    "OLMo 3": ("olmo3", {"sliding_window": WINDOW}),
    "GLM": ("glm", {"head_dim": 8}),
    "GLM 4": ("glm4", {"head_dim": 8}),
    "EXAONE 4": ("exaone4", {"sliding_window": WINDOW}),
    "DeepSeek-V2": ("deepseek_v2", DEEPSEEK),
    "DeepSeek-V3": ("deepseek_v3", DEEPSEEK),
    "JetMoe": ("jetmoe", {"kv_channels": 8, "num_local_experts": 4}),
    "MiniMax": ("minimax", EXPERTS | {"block_size": 8, "head_dim": 8}),
    "Jamba": (
        "jamba",
        {
            "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4,
            "mamba_dt_rank": 4, "use_mamba_kernels": False,
        },
    ),
}  # fmt: skip
