"""An untrained Llama whose heads share keys and values, small enough for exact tests."""

WORDS = 32
SMALL = {
    "vocab_size": WORDS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_labels": 1,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
    # Larger than usual: with nearly even attention it would hardly matter who sees whom.
    "initializer_range": 0.2,
}
