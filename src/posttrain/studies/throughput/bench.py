"""The bench of the throughput study: its settings, the model, and one method's turn on it."""

import copy
import gc
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
)

from posttrain.config.fields import at_least_one, setting
from posttrain.errors import UserError
from posttrain.models import embedded, reward_model
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.studies.common.cost import SHAPES, GroupLengths, forward_flops, tokens, visible_pairs
from posttrain.studies.throughput.methods import Method, draw_groups, make_trainer

#: What settings that are not given become.
CPU_DEFAULTS = {
    "response_tokens": 48,
    "pack_length": 1024,
    "dtype": "float32",
    "attention": "shared_prefix",
}
CUDA_DEFAULTS = {
    "response_tokens": 284,
    "pack_length": 8192,
    "dtype": "bfloat16",
    "attention": "shared_prefix",
}
#: A checkpoint of this name is no checkpoint: it stands for :func:`random_llama`.
RANDOM_LLAMA = "llama-1b"


@dataclass(frozen=True)
class ThroughputSettings:
    """Settings of the study.

    Raises:
        UserError: If a number is out of range.
    """

    checkpoint: str = setting(
        "smollm2",
        "smollm2, tiny, a folder, a name on the Hugging Face hub, or llama-1b: the shape of "
        "Llama-3.2-1B with random weights.",
    )
    ratios: list[float] = setting([1.0, 2.67, 6.0], "Tokens of a prompt, in responses.")
    responses: list[int] = setting([2, 3], "Responses in a group.")
    response_tokens: int = setting(None, "Tokens of a response; default 48, on CUDA 284.")
    spread: float = setting(0.0, "Lengths vary uniformly by this share of their average.")
    groups_per_step: int = setting(2, "Groups in one optimiser step.")
    pack_length: int = setting(
        None, "Most tokens of a row that groups share; default 1024, on CUDA 8192."
    )
    max_tokens_per_device: int | None = setting(
        None,
        "Most tokens computed at once, padding included, by gradient accumulation (posttrain train "
        "takes 16384); default none: the whole step.",
    )
    steps: int = setting(2, "Timed optimiser steps of each method in a round.")
    warmup_steps: int = setting(1, "Untimed steps before them.")
    rounds: int = setting(2, "How often each method has its turn.")
    dtype: Literal["float32", "bfloat16"] = setting(
        None, "Precision of the weights; default float32, on CUDA bfloat16."
    )
    attention: Literal["sdpa", "flex_attention", "shared_prefix"] = setting(
        None, "Attention of rows with a mask, default shared_prefix; others use sdpa."
    )
    memory: bool = setting(True, "Measure peak memory too.")
    memory_ratio: float = setting(2.67, "The ratio at which to measure it.")
    seed: int = setting(0, "Seeds lengths, tokens and random weights.")

    def __post_init__(self) -> None:
        defaults = CUDA_DEFAULTS if torch.cuda.is_available() else CPU_DEFAULTS
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        at_least_one(self, "response_tokens", "groups_per_step", "steps", "warmup_steps", "rounds")
        if not self.responses or min(self.responses) < 2:
            raise UserError(f"responses must be 2 or more, not {self.responses}")
        if not self.ratios or min(*self.ratios, self.memory_ratio) <= 0:
            raise UserError(f"ratios must be positive, not {self.ratios}, {self.memory_ratio}")
        if not 0 <= self.spread < 1:
            raise UserError(f"spread must be at least 0 and below 1, not {self.spread}")
        parts = max(*self.ratios, self.memory_ratio) + max(self.responses)
        largest = math.ceil(parts * self.response_tokens * (1 + self.spread))
        if self.pack_length < largest:
            raise UserError(f"pack_length must be at least {largest}, the most that a group takes")


class StepTimer(TrainerCallback):
    """Times optimiser steps from the end of one to the end of the next, and keeps their losses.

    Between the two lies all that a step costs, making its batch included, which Trainer does before
    it announces the step's beginning; only logging the loss of the step before is left out. The
    first step has no predecessor and goes untimed, which is welcome: it also sets up the optimiser
    and warms up kernels.

    The trainer must log every step.
    """

    def __init__(self) -> None:
        self._update_began = 0.0
        self._ends: list[float] = []
        self._updates: list[float] = []
        self._losses: list[float] = []
        self._logged: list[float] = []

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Gradients are there and clipped."""
        self._update_began = now()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Weights are updated and gradients freed."""
        self._ends.append(now())
        self._updates.append(self._ends[-1] - self._update_began)

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """A step's loss is logged, right after its end; other numbers at the end of training."""
        if "loss" in kwargs["logs"]:
            self._losses.append(kwargs["logs"]["loss"])
            self._logged.append(now())

    def steps(self) -> list[dict[str, float]]:
        """For each step but the first what it took, and its loss before the weight update.

        Returns:
            ``seconds``; ``update_seconds`` of the weight update; ``loss``, the mean over the step's
            pairs as the trainer logs it.
        """
        return [
            {
                "seconds": self._ends[k] - self._logged[k - 1],
                "update_seconds": self._updates[k],
                "loss": self._losses[k],
            }
            for k in range(1, len(self._ends))
        ]


def now() -> float:
    """Seconds of a clock, once the device has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def random_llama(
    *, device: torch.device, dtype: torch.dtype, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A reward model of Llama-3.2-1B's shape with random weights, on which speed does not depend.

    Nothing is downloaded, and nothing is kept in another precision or place first.

    Args:
        device: Where to build it.
        dtype: Precision of the weights; the score head is at least float32.
        seed: Seeds the weights.

    Returns:
        The model, and a tokenizer that has a padding token and knows no words.
    """
    # Trainers ask a tokenizer for its padding only, since groups come as token ids. So the special
    # tokens of the tiny Llama's will do, whatever the model's vocabulary.
    tokenizer = embedded.train_tokenizer([])
    config = copy.deepcopy(SHAPES["Llama-3.2-1B"])
    config.max_position_embeddings = 131_072
    config.num_labels = 1
    torch.manual_seed(seed)
    with device:
        model = AutoModelForSequenceClassification.from_config(config, dtype=dtype)
    return reward_model.as_reward_model(model, tokenizer), tokenizer


@dataclass(frozen=True)
class Bench:
    """What all methods share.

    Attributes:
        settings: Settings of the study.
        model: The reward model.
        tokenizer: Its tokenizer.
        weights: The model's weights before any training, in main memory.
    """

    settings: ThroughputSettings
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    weights: Mapping[str, Tensor] = field(repr=False)

    @classmethod
    def load(cls, settings: ThroughputSettings) -> "Bench":
        """Load the model on the device on which it is trained."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = getattr(torch, settings.dtype)
        if settings.checkpoint == RANDOM_LLAMA:
            model, tokenizer = random_llama(device=device, dtype=dtype, seed=settings.seed)
        else:
            model, tokenizer = reward_model.load(
                embedded.find(settings.checkpoint), seed=settings.seed, dtype=dtype
            )
            model.to(device)  # type: ignore[arg-type]
        weights = {name: tensor.to("cpu", copy=True) for name, tensor in model.state_dict().items()}
        return cls(settings, model, tokenizer, weights)

    def groups(self, ratio: float, responses: int, *, steps: int) -> list[TokenizedGroup]:
        """Groups of random tokens for so many steps.

        Args:
            ratio: Tokens of a prompt, in responses.
            responses: Responses in a group.
            steps: Optimiser steps.
        """
        vocabulary: int = self.model.config.vocab_size
        padding = self.tokenizer.pad_token_id
        return draw_groups(
            steps * self.settings.groups_per_step,
            prompt_tokens=round(ratio * self.settings.response_tokens),
            response_tokens=self.settings.response_tokens,
            responses=responses,
            spread=self.settings.spread,
            # TRL scores the last token that is not padding, so none may look like it.
            words=[word for word in range(vocabulary) if word != padding],
            seed=self.settings.seed,
        )

    def trainer(
        self, method: Method, groups: Sequence[TokenizedGroup], *, steps: int, folder: str
    ) -> Trainer:
        """A trainer of these settings (see :func:`.throughput.methods.make_trainer`)."""
        return make_trainer(
            method,
            self.model,
            self.tokenizer,
            groups,
            groups_per_step=self.settings.groups_per_step,
            steps=steps,
            pack_length=self.settings.pack_length,
            max_tokens_per_device=self.settings.max_tokens_per_device,
            attention=self.settings.attention,
            folder=folder,
        )

    def train(self, method: Method, groups: Sequence[TokenizedGroup]) -> list[dict[str, float]]:
        """Train on all groups but the last step's; times and losses of :meth:`StepTimer.steps`.

        The last step's groups are there so that each timed step also makes the batch of the next
        one, which Trainer fetches ahead. Training starts from the initial weights each time, so
        that methods which compute the same have the same losses.
        """
        self.model.load_state_dict(self.weights)
        timer = StepTimer()
        steps = len(groups) // self.settings.groups_per_step - 1
        with tempfile.TemporaryDirectory() as folder:
            trainer = self.trainer(method, groups, steps=steps, folder=folder)
            trainer.add_callback(timer)
            trainer.train()
        return timer.steps()

    def work(self, method: Method, groups: Sequence[TokenizedGroup]) -> list[dict[str, float]]:
        """What each step on these groups computes.

        Returns:
            For each step ``pairs``; ``tokens``, repeated prompts included, padding not; ``slots``,
            tokens with padding; ``flops`` of forward and backward pass, of visible pairs of tokens
            only.
        """
        with tempfile.TemporaryDirectory() as folder:
            trainer = self.trainer(method, groups, steps=1, folder=folder)
            # TRL's trainer accumulates batches, ours has micro-batches.
            batches = trainer.args.gradient_accumulation_steps
            slots = [
                sum(part["input_ids"].numel() for part in batch.get("micro_batches", [batch]))
                for batch in trainer.get_train_dataloader()
            ]
        size = self.settings.groups_per_step
        return [
            self._counts(method, groups[step * size : (step + 1) * size])
            | {"slots": sum(slots[step * batches : (step + 1) * batches])}
            for step in range(len(groups) // size)
        ]

    def _counts(self, method: Method, groups: Sequence[TokenizedGroup]) -> dict[str, float]:
        lengths = [
            GroupLengths(len(group.prompt), tuple(map(len, group.responses))) for group in groups
        ]
        computed = sum(tokens(group, method.arrangement) for group in lengths)
        visible = sum(visible_pairs(group, method.arrangement) for group in lengths)
        config: Any = self.model.config
        return {
            "pairs": sum(math.comb(len(group.responses), 2) for group in groups),
            "tokens": computed,
            # The backward pass takes two products for each one of the forward pass.
            "flops": 3 * forward_flops(config, computed, visible),
        }

    def peak_memory(self, method: Method, groups: Sequence[TokenizedGroup]) -> int:
        """Most bytes that training on all groups but the last step's takes beside the weights.

        On a CPU this is the growth of the process, which must be a fresh one: memory that earlier
        training gave back to the allocator would hide some of it.

        Raises:
            UserError: On a CPU without Linux's ``/proc``.
        """
        if torch.cuda.is_available():
            # Trainers hold themselves in cycles, and with them the tensors of earlier training.
            gc.collect()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self.train(method, groups)
            return torch.cuda.max_memory_allocated() - before
        before = _process_bytes("VmRSS")
        self.train(method, groups)
        return _process_bytes("VmHWM") - before


def _process_bytes(name: str) -> int:
    """A field of Linux's account of this process, in bytes.

    ``getrusage`` will not do: a child process starts with its parent's peak.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(
            "peak memory on a CPU is read from /proc/self/status, which only Linux has; "
            "set memory to false (--no_memory)"
        ) from None
    kibibytes = next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(kibibytes) * 1024
