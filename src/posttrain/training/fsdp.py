"""What FSDP is to do with a reward model in mixed precision.

Accelerate lets FSDP2 compute every weight in half precision, add up gradients in it and round what
the model returns to it. Of a score, eight bits would be left; differences of scores, which are all
that counts, would be mostly rounding. Here, as without FSDP, the body alone is in half precision.
"""

from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from posttrain.errors import UserError
from posttrain.models.reward_model import score_head, stock_model


def shard_head_in_fp32(model: nn.Module, plugin: Any) -> None:
    """Let FSDP compute and add up in full precision what scores and gradients need.

    To be called before the model is sharded and its optimiser made. The head becomes a sharded
    module of its own, in float32, and the precision of ``plugin``, accelerate's settings of FSDP,
    is changed. None, FSDP1 and full precision are left alone.
    """
    policy = getattr(plugin, "mixed_precision_policy", None)
    head = score_head(stock_model(model))
    if not isinstance(policy, MixedPrecisionPolicy) or isinstance(head, FSDPModule):
        return
    if plugin.cpu_ram_efficient_loading:
        raise UserError(
            "fsdp_cpu_ram_efficient_loading does not go with bf16 here, because the float32 score "
            "head is sharded by itself; set it to false (see runs/accelerate/fsdp2.yaml)"
        )
    plugin.mixed_precision_policy = MixedPrecisionPolicy(
        param_dtype=policy.param_dtype, reduce_dtype=torch.float32
    )
    head.float()
    fully_shard(head, mp_policy=MixedPrecisionPolicy(), offload_policy=plugin.cpu_offload)
