"""``posttrain`` with FSDP2 on processes without GPU.

Accelerate starts FSDP on accelerators only, although torch computes it on CPUs as well. So once the
processes are set up, with gloo and on the CPU, accelerate is told that they are of a kind on which
it does. All that follows is its own code and torch's.
"""

import os

from accelerate import state
from accelerate.utils import DistributedType

SETTINGS = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
}
_set_up = state.PartialState.__init__


def _set_up_as_if_on_gpus(self, *arguments, **named):
    _set_up(self, *arguments, **named)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


def enable():
    """Let accelerate do so in this process from now on."""
    os.environ |= SETTINGS
    state.PartialState.__init__ = _set_up_as_if_on_gpus
