"""Fixtures that several test modules share."""

import gc
from pathlib import Path

import pytest
import torch
from small_llama import SMALL, WORDS
from transformers import LlamaConfig, LlamaForSequenceClassification
from transformers.utils import logging

from posttrain.data.sources.simulator.annotators import simulate
from posttrain.models import embedded, reward_model
from posttrain.models.float64 import compute_in_double
from posttrain.models.reward_model import score_head
from posttrain.rows.tokenization import TokenizedGroup, tokenize_group

# The models here are so small that threads only wait for one another.
torch.set_num_threads(1)
logging.disable_progress_bar()
logging.set_verbosity_error()


def pytest_collection_finish():
    """What is imported by now stays: each training collects garbage, in vain among all of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_settings() -> embedded.TinySettings:
    return embedded.TinySettings(texts=600, hidden_size=32, batch_size=8)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory, tiny_settings) -> Path:
    """Folder of a small pre-trained Llama; nothing may write into it."""
    with pytest.MonkeyPatch.context() as patch:
        # Only here: the checkpoint that takes long to convert stays in the user's own cache.
        patch.setenv("POSTTRAIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        return embedded.tiny(tiny_settings)


@pytest.fixture(scope="session")
def grouped_checkpoint(tmp_path_factory):
    """Folder of an untrained Llama whose heads share keys and values."""
    folder = tmp_path_factory.mktemp("grouped")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForSequenceClassification(LlamaConfig(**SMALL)).double().save_pretrained(folder)
    words = [f"w{number}" for number in range(WORDS - len(embedded.SPECIAL_TOKENS))]
    embedded.train_tokenizer([" ".join(words)]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def load(tiny_checkpoint, grouped_checkpoint):
    """Loads a fresh model by name, with scores of order one so that tolerances are demanding."""
    folders = {"trained": tiny_checkpoint, "grouped": grouped_checkpoint}

    def load(name, dtype=torch.float64):
        model, _ = reward_model.load(folders[name], dtype=dtype)
        # As it is trained, and because float32 parts would round what these tests compare.
        compute_in_double(model)
        torch.nn.init.normal_(score_head(model).weight, generator=torch.Generator().manual_seed(0))
        return model

    return load


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
