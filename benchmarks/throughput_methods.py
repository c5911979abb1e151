"""The ways of training that throughput.py compares, and a turn of each: one optimiser step.

All train the same model on the same pairs with the plain Bradley–Terry loss, in the loop of
``transformers.Trainer`` and with one AdamW; they differ in the rows that they compute.
"""

import copy
import gc
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from throughput_workloads import apart
from transformers import (
    AutoModelForSequenceClassification,
    PrinterCallback,
    TrainerCallback,
)
from transformers.utils import logging

from posttrain.models import embedded, reward_model
from posttrain.rows.attention import share_prefixes
from posttrain.rows.layout import LAYOUTS, Layout
from posttrain.rows.shared_prefix import NAME as SHARED_PREFIX
from posttrain.studies.common.cost import (
    SHAPES,
    Arrangement,
    GroupLengths,
    forward_flops,
    tokens,
    visible_pairs,
)
from posttrain.studies.packing.keys import Way
from posttrain.training.collator import (
    GroupCollator,
    TrainingGroup,
    TrainingRows,
    training_set,
)
from posttrain.training.config import RankingConfig
from posttrain.training.merging import Merging
from posttrain.training.trainer import RankingTrainer

try:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer
except ImportError:
    RewardTrainer = None

#: A checkpoint of this name is none: the shape of Llama-3.2-1B with random weights.
RANDOM_LLAMA = "llama-1b"
#: Most pairs of a merged group's part: a step of Llama 2, and of ``posttrain train``.
MAX_PAIRS = 512


@dataclass(frozen=True)
class Method:
    """A way of training: rows of a layout (None: TRL's trainer), and how attention is computed."""

    layout: Layout | None
    attention: str = "sdpa"
    merges: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether it computes the loss of separate rows."""
        return self.layout is None or self.layout.is_exact

    @property
    def arrangement(self) -> Arrangement:
        """What it computes of its :meth:`rows`, for the closed forms."""
        if self.layout is None or self.layout.rows == "separate":
            return "separate rows"
        return "exact row" if self.layout.is_exact else "causal row"

    def rows(self, groups: Sequence[TrainingGroup], max_tokens: int) -> TrainingRows:
        """What it trains on: groups as they are; each pair alone (TRL); or merged by prompt."""
        if self.layout is None:
            groups = [pair for group in groups for pair in apart(group)]
        elif self.merges:
            return training_set(groups, Merging(self.layout, max_tokens, MAX_PAIRS))
        return training_set(groups)

    def work(self, rows: TrainingRows) -> tuple[float, float]:
        """Tokens that it computes, padding aside, and pairs of tokens of which one sees another."""
        groups = [
            GroupLengths(len(row["prompt"]), tuple(map(len, row["responses"])))
            for row in rows.records
        ]
        return (
            sum(tokens(group, self.arrangement) for group in groups),
            sum(visible_pairs(group, self.arrangement) for group in groups),
        )


METHODS: dict[str, Method] = {
    Way.TRL: Method(None),
    Way.SEPARATE: Method(LAYOUTS["separate"]),
    Way.CAUSAL: Method(LAYOUTS["causal"]),
    Way.DENSE: Method(LAYOUTS["exact"]),
    Way.TWO_PIECE: Method(LAYOUTS["exact"], SHARED_PREFIX),
    Way.MERGED: Method(LAYOUTS["exact"], SHARED_PREFIX, merges=True),
    Way.FLEX: Method(LAYOUTS["exact"], "flex_attention"),
}


def now() -> float:
    """Seconds of a clock, once the device has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def matmul_flops(dtype: torch.dtype, trials: int = 5) -> float:
    """Operations per second of a large matrix product, the best of trials: what is to be had."""
    # On a GPU a product takes a millisecond; several make its start and the wait for it negligible.
    device, size, products = ("cuda", 8192, 20) if torch.cuda.is_available() else ("cpu", 2048, 1)
    factor = torch.randn(size, size, device=device, dtype=dtype)
    product = torch.empty_like(factor)
    seconds = []
    for _ in range(trials + 1):  # The first sets up libraries and lets the clock rate rise.
        start = now()
        for _ in range(products):
            torch.mm(factor, factor, out=product)
        seconds.append((now() - start) / products)
    return 2 * size**3 / min(seconds[1:])


class _Watch(TrainerCallback):
    """Times a step, making its batches included."""

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        self.seconds = -now()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds += now()


class _Counted:
    """A trainer that adds up the loss of all its pairs, and tokens computed with padding."""

    loss: Any = 0.0
    slots = 0
    pairs = 0
    most: int | None = None  # micro-batches to compute; None: all

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        rows, longest = inputs["input_ids"].shape
        loss = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        # Ours come with their share of the step; the mean of a batch of TRL's, with two rows each.
        share = 1.0 if "share" in inputs else rows / 2 / self.pairs
        self.loss = self.loss + share * loss.detach().double()
        self.slots += rows * longest
        return loss


class _RowTrainer(_Counted, RankingTrainer):
    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        inputs = inputs | {"micro_batches": inputs["micro_batches"][: self.most]}
        return super().training_step(model, inputs, *args, **kwargs)


if RewardTrainer is not None:

    class _PairTrainer(_Counted, RewardTrainer):
        # A thread of telemetry would run beside the timed step.
        def _send_telemetry(self) -> None: ...


@dataclass(frozen=True)
class Turn:
    """What a step took: ``memory`` in bytes beside the weights, None on a CPU."""

    seconds: float
    loss: float
    slots: int
    memory: int | None


@dataclass(frozen=True)
class Setting:
    """What a model is loaded by, and how much of it is computed at once."""

    checkpoint: str
    dtype: str
    max_tokens_per_device: int
    layers: int | None = None
    seed: int = 0


class Bench:
    """A model with its optimiser, on which methods take turns."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model, self.tokenizer = _load(setting, self.device)
        self.weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        # One for all, whose moments exist from the first step on. The rate is small, so that
        # weights trained on noise stay ordinary numbers.
        parameters = self.model.parameters()
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-6, weight_decay=0.0, fused=True)

    def turn(self, method: Method, rows: TrainingRows, *, most: int | None = None) -> Turn:
        """One step on all rows, from the initial weights on; ``most``: micro-batches of it."""
        self.model.load_state_dict(self.weights)
        if method.attention == SHARED_PREFIX:
            share_prefixes(self.model, asked_for=True)
        else:
            self.model.set_attn_implementation(method.attention)
        watch = _Watch()
        with tempfile.TemporaryDirectory() as folder:
            trainer = self._trainer(method, rows, folder, most)
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(watch)
            # Trainers hold themselves in cycles, and with them the tensors of earlier turns.
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            trainer.train()
        memory = None
        if self.device.type == "cuda":
            # Every turn starts from a copy of the weights, which lies beside them.
            memory = torch.cuda.max_memory_allocated() - 2 * self.model.get_memory_footprint()
        return Turn(watch.seconds, float(trainer.loss), trainer.slots, memory)

    def _trainer(self, method: Method, rows: TrainingRows, folder: str, most: int | None) -> Any:
        pairs = sum(rows["pair_count"])
        common: dict[str, Any] = {
            "output_dir": folder,
            "max_steps": 1,
            "train_sampling_strategy": "sequential",
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
            "use_cpu": self.device.type == "cpu",
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }
        limit = self.setting.max_tokens_per_device
        if method.layout is None:
            # As many pairs at once as fit, in random order, as TRL has it by default.
            at_once = max(1, limit // (2 * max(rows["length"])))
            order = np.random.default_rng(self.setting.seed).permutation(len(rows))
            if most is not None:
                order = np.argsort(rows["length"])[::-1][: most * at_once]
            data = [
                {
                    "chosen_ids": row["prompt"] + row["responses"][0],
                    "rejected_ids": row["prompt"] + row["responses"][1],
                }
                for row in rows.__getitems__(order.tolist())
            ]
            # TRL's defaults would drop long pairs, compute in bfloat16 and recompute activations.
            # For the last, None means no, but does not warn that the setting has a new name.
            common |= {"max_length": None, "bf16": False, "gradient_checkpointing": None}
            trainer: Any = _PairTrainer(
                self.model,
                RewardConfig(
                    **common,
                    per_device_train_batch_size=at_once,
                    gradient_accumulation_steps=-(-len(data) // at_once),
                ),
                train_dataset=Dataset.from_list(data),
                processing_class=self.tokenizer,
                optimizers=(self.optimizer, None),
            )
        else:
            trainer = _RowTrainer(
                self.model,
                RankingConfig(**common, pairs_per_step=pairs, max_tokens_per_device=limit),
                train_dataset=rows,
                data_collator=GroupCollator(self.tokenizer.pad_token_id, method.layout),
                optimizers=(self.optimizer, None),
            )
        trainer.pairs, trainer.most = pairs, most
        return trainer

    def flops(self, tokens: float, visible: float) -> float:
        """Operations of forward and backward pass, of visible pairs of tokens only."""
        return 3 * forward_flops(self.model.config, tokens, visible)


def _load(setting: Setting, device: torch.device) -> tuple[Any, Any]:
    dtype = getattr(torch, setting.dtype)
    if setting.checkpoint == RANDOM_LLAMA:
        # Trainers ask a tokenizer for its padding only, since groups come as token ids.
        tokenizer: Any = embedded.train_tokenizer([])
        config = copy.deepcopy(SHAPES["Llama-3.2-1B"])
        config.num_labels = 1
        torch.manual_seed(setting.seed)
        with device:
            model: Any = AutoModelForSequenceClassification.from_config(config, dtype=dtype)
        reward_model.as_reward_model(model, tokenizer)
    else:
        checkpoint = embedded.find(setting.checkpoint)
        model, tokenizer = reward_model.load(checkpoint, seed=setting.seed, dtype=dtype)
        model.to(device)
    if setting.layers is not None:
        del model.base_model.layers[setting.layers :]
        model.config.num_hidden_layers = len(model.base_model.layers)
    return model, tokenizer


def memory_alone(setting: Setting, method: str, rows: TrainingRows) -> float:
    """Peak memory in bytes of two micro-batches, the largest, in a process of its own on a CPU.

    What training takes beside the weights: activations, gradients and AdamW's moments. NaN without
    Linux's ``/proc``.
    """
    if not Path("/proc/self/clear_refs").exists():
        return float("nan")
    # Memory that earlier turns gave back to the allocator would hide some of it.
    with ProcessPoolExecutor(1, get_context("spawn"), quiet) as alone:
        return alone.submit(_growth, setting, method, rows).result()


def quiet() -> None:
    """No progress bars and warnings."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _growth(setting: Setting, method: str, rows: TrainingRows) -> float:
    bench = Bench(setting)
    Path("/proc/self/clear_refs").write_text("5")  # The peak so far is forgotten.
    before = _process_bytes("VmRSS")
    bench.turn(METHODS[method], rows, most=2)
    return _process_bytes("VmHWM") - before


def _process_bytes(name: str) -> int:
    # getrusage will not do: a child process starts with its parent's peak.
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:"))) * 1024
