"""Fixtures that several test modules share."""

from pathlib import Path

import pytest
import torch
from transformers.utils import logging

from posttrain import checkpoints, reward_model
from posttrain.sources.simulator import simulate
from posttrain.tokenization import TokenizedGroup, tokenize_group

# The models here are so small that threads only wait for one another.
torch.set_num_threads(1)
logging.disable_progress_bar()
logging.set_verbosity_error()


@pytest.fixture(scope="session")
def tiny_settings() -> checkpoints.TinySettings:
    return checkpoints.TinySettings(texts=600, hidden_size=32, batch_size=8)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory, tiny_settings) -> Path:
    """Folder of a small pre-trained Llama; nothing may write into it."""
    with pytest.MonkeyPatch.context() as patch:
        # Only here: the checkpoint that takes long to convert stays in the user's own cache.
        patch.setenv("POSTTRAIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        return checkpoints.tiny(tiny_settings)


@pytest.fixture
def tiny_model(tiny_checkpoint):
    """A fresh reward model in float64 and its tokenizer; a test may change both."""
    return reward_model.load(tiny_checkpoint)


@pytest.fixture
def bfloat16_model(tiny_checkpoint):
    """The same with a bfloat16 body."""
    return reward_model.load(tiny_checkpoint, dtype=torch.bfloat16)


@pytest.fixture(scope="session")
def tiny_groups(tiny_checkpoint) -> list[TokenizedGroup]:
    """Simulated groups of two and of three responses, best response first."""
    _, tokenizer = reward_model.load(tiny_checkpoint)
    simulated = simulate(24, seed=5, edited_share=0.5)
    return [tokenize_group(tokenizer, group.ranked) for group in simulated]
