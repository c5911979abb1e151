"""FSDP in mixed precision: its policy, and what is left alone (runs: test_train_resumed.py)."""

from types import SimpleNamespace

import pytest
import torch
from torch.distributed.fsdp import MixedPrecisionPolicy

from posttrain.models.reward_model import score_head
from posttrain.training import fsdp
from posttrain.training.fsdp import shard_head_in_fp32

#: As accelerate makes it.
HALF = MixedPrecisionPolicy(torch.bfloat16, torch.bfloat16, torch.bfloat16)


@pytest.fixture
def sharded(monkeypatch):
    """The modules that were to be sharded, with their policies."""
    found = []
    monkeypatch.setattr(
        fsdp,
        "fully_shard",
        lambda module, **settings: found.append((module, settings["mp_policy"])),
    )
    return found


def plugin(policy, *, loads_once=False):
    return SimpleNamespace(
        mixed_precision_policy=policy, cpu_ram_efficient_loading=loads_once, cpu_offload=None
    )


def test_the_body_alone_is_computed_in_half_precision(tiny_model, sharded):
    settings = plugin(HALF)
    shard_head_in_fp32(tiny_model[0], settings)
    found = settings.mixed_precision_policy
    assert (found.param_dtype, found.reduce_dtype) == (torch.bfloat16, torch.float32)
    # What the model returns stays as it is.
    assert found.output_dtype is None
    assert sharded == [(score_head(tiny_model[0]), MixedPrecisionPolicy())]
    assert score_head(tiny_model[0]).weight.dtype == torch.float32


@pytest.mark.parametrize("settings", [None, plugin(None)], ids=["no FSDP", "full precision"])
def test_nothing_changes_without_fsdp_or_in_full_precision(tiny_model, sharded, settings):
    shard_head_in_fp32(tiny_model[0], settings)
    assert sharded == []
    assert score_head(tiny_model[0]).weight.dtype == torch.float64


def test_weights_that_one_process_loads_for_all_are_refused(tiny_model, sharded):
    with pytest.raises(ValueError, match="fsdp_cpu_ram_efficient_loading does not go with bf16"):
        shard_head_in_fp32(tiny_model[0], plugin(HALF, loads_once=True))
