"""Whether tiny random models of many architectures score as stock classes do.

``python tests/helpers/matrix.py`` prints the table of the book's page of architectures.
"""

import gc
import random
import re
import sys
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, BASE, BOUNDARY, VOCABULARY, WORDS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from posttrain.data.preferences import Message, RankedGroup
from posttrain.errors import UserError
from posttrain.evaluation.report import report
from posttrain.evaluation.scoring import Scored, limits_for, score_groups
from posttrain.models import reward_model
from posttrain.models.embedded import CHAT_TEMPLATE, SPECIAL_TOKENS
from posttrain.models.exactness import check_exact
from posttrain.models.rotary import rope_boundary, within_boundary
from posttrain.rows.layout import LAYOUTS, Layout
from posttrain.rows.tokenization import tokenize_group
from posttrain.training import saving
from posttrain.training.collator import GroupCollator, TrainingGroup, training_set
from posttrain.training.config import RankingConfig
from posttrain.training.trainer import RankingTrainer

#: By name, a layout and how long shared rows are.
ROWS: dict[str, tuple[Layout, int | None]] = {
    "separate": (LAYOUTS["separate"], None),
    "exact": (LAYOUTS["exact"], None),
    "exact, shared": (LAYOUTS["exact"], 120),
    "causal": (Layout("single", "causal", "running"), None),
}

#: Parts of the sentences in which a model is refused, by the letter of the table.
REFUSALS = {
    "a": "reads tokens that follow a response",
    "b": "has layers of type linear_attention, which do not follow the mask of a row",
    "c": "has layers of type local, which do not follow the mask of a row",
    "d": "takes no mask for rows that responses or groups share",
    "e": "does not keep responses in one row apart",
}


def texts() -> list[RankedGroup]:
    """Groups whose rows lie on both sides of window and boundary, with and without an edit."""
    words = random.Random(0)

    def some(count: int) -> str:
        return " ".join(words.choices(WORDS, k=count))

    lengths = [(7, [5, 9]), (3, [2, 4, 1]), (13, [3, 17]), (28, [20, 2]), (21, [6, 5, 12])]
    return [
        RankedGroup(str(number), (Message("user", some(first)),), tuple(map(some, others)))
        for number, (first, others) in enumerate(lengths)
    ]


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, because classes of some tokenizers (Qwen 2's) make one so whatever is stored."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words.train_from_iterator([f" {word}" for word in WORDS], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<|pad|>", eos_token="<|end|>",
        chat_template=CHAT_TEMPLATE,
    )  # fmt: skip


def build(name: str, folder: Path) -> Any:
    """Save a random classifier whose scores are of size one, with its tokenizer."""
    kind, changes = ARCHITECTURES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **BASE | changes)
        model: Any = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    words = tokenizer()
    with torch.no_grad():
        found = torch.tensor(list(chain(*stock_scores(model.eval(), words))))
        model.score.weight /= found.std()
    words.save_pretrained(folder)
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def stock_scores(
    model: Any, words: Any, *, padded: bool = False, causal: bool = False
) -> list[list[float]]:
    """What transformers alone gives: each conversation for itself, or all in a padded batch.

    If ``causal``, the responses of a prompt stand one behind the other, and are read at their ends.
    """
    found = []
    rows = []
    for group in texts():
        turns = [{"role": turn.role, "content": turn.content} for turn in group.prompt]
        prompt = words.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
        wholes = [
            words.apply_chat_template([*turns, {"role": "assistant", "content": response}])
            for response in group.responses
        ]
        # The prompt ends with a space, which the first word of a response takes.
        start = len(prompt) - 1
        parts = [whole["input_ids"][start:] for whole in wholes]
        rows += [prompt[:start] + part for part in parts]
        if causal:
            row = torch.tensor([prompt[:start] + list(chain(*parts))])
            ends = start - 1 + torch.tensor([len(part) for part in parts]).cumsum(0)
            found.append(model.score(model.base_model(row)[0])[0, ends, 0].tolist())
    if causal:
        return found
    if padded:
        batch = words.pad({"input_ids": rows}, return_tensors="pt", padding_side="right")
        scores = iter(model(**batch).logits[:, 0].tolist())
    else:
        scores = iter([model(input_ids=torch.tensor([row])).logits.item() for row in rows])
    return [[next(scores) for _ in group.responses] for group in texts()]


def close(found: list[list[float]], expected: list[list[float]], limit: float) -> bool:
    """Whether scores differ by the limit at most, relative to those beyond one."""
    pairs = zip(chain(*found), chain(*expected), strict=True)
    return all(abs(one - other) <= limit * max(1, abs(other)) for one, other in pairs)


class Matrix:
    """One architecture in all layouts."""

    def __init__(self, name: str, folder: Path) -> None:
        # Trainer collects garbage after each run, which takes longer than the run.
        gc.freeze()
        self.folder = folder
        build(name, folder)
        self.words = AutoTokenizer.from_pretrained(folder)
        self.stock = {
            dtype: AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype).eval()
            for dtype in (torch.float32, torch.float64)
        }
        if self.stock[torch.float64].config._experts_implementation == "grouped_mm":
            # It has no other in float64.
            self.stock[torch.float64].set_experts_implementation("eager")
        self.models = {dtype: reward_model.load(folder, dtype=dtype)[0] for dtype in self.stock}
        self.moved: dict[str, Any] = {}

    @lru_cache  # noqa: B019, for as long as the test of one architecture
    def expected(self, dtype: torch.dtype, causal: bool) -> list[list[float]]:
        return stock_scores(self.stock[dtype], self.words, causal=causal)

    def scored(self, model: Any, rows: str) -> list[Scored]:
        """Scores as the commands compute them."""
        layout, pack_length = ROWS[rows]
        limits = limits_for(model, layout, pack_length=pack_length)
        return list(
            score_groups(
                model, self.words, texts(), layout, limits,
                batch_tokens=300, pack_length=pack_length,
            )
        )  # fmt: skip

    def check(self, rows: str) -> None:
        """As commands do before they score."""
        layout, pack_length = ROWS[rows]
        model = self.models[torch.float32]
        check_exact(model, layout, pad_token_id=0, shared_rows=pack_length is not None)

    def train(self, rows: str) -> Any:
        """A model after one step, of which ``moved`` says how far its weights went."""
        layout, pack_length = ROWS[rows]
        model: Any = reward_model.load(self.folder)[0]
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        limits = limits_for(model, layout, pack_length=pack_length)
        limits = within_boundary(model.config, limits, layout)
        groups = [tokenize_group(self.words, group, limits) for group in texts()]
        config = RankingConfig(
            str(self.folder / "run"), groups_per_step=len(groups), max_tokens_per_device=300,
            max_steps=1, optim="sgd", learning_rate=0.02, lr_scheduler_type="constant",
            warmup_steps=0, max_grad_norm=0.0, use_cpu=True, save_strategy="no",
            logging_strategy="no", report_to="none", disable_tqdm=True,
        )  # fmt: skip
        trainer = RankingTrainer(
            model,
            config,
            train_dataset=training_set([TrainingGroup.with_all_pairs(group) for group in groups]),
            data_collator=GroupCollator(0, layout, pack_length),
        )
        trainer.train()
        self.moved[rows] = {
            name: weight.detach() - before[name] for name, weight in model.named_parameters()
        }
        return model.eval()

    def outcome(self, rows: str) -> str:
        """``=`` if a model trains, scores and is evaluated as stock has it; else why it is refused.

        Raises:
            AssertionError: If it differs, or is refused in one command alone.
        """
        layout, _ = ROWS[rows]
        causal = layout.attention == "causal"
        try:
            self.check(rows)
        except UserError as error:
            with pytest.raises(UserError, match=re.escape(str(error)[:60])):
                self.train(rows)
            return str(error)
        model, stock = self.models[torch.float32], self.stock[torch.float32]
        found, expected = self.scored(model, rows), self.expected(torch.float32, causal)
        assert close(values(found), expected, 1e-5), "scores differ"
        # Its own batches mix rows of both sides.
        if rows == "separate" and rope_boundary(model.config) != BOUNDARY:
            assert close(values(found), stock_scores(stock, self.words, padded=True), 1e-5)
        model = self.models[torch.float64]
        # Eager attention takes its softmax, DeepSeek-V2 its rotary angles and DeepSeek-V3 its
        # routes in float32 whatever the model's precision, so stock scores differ as much between
        # batches, on some CPUs.
        text = model.config.get_text_config()
        half = text._attn_implementation == "eager" or text.model_type.startswith("deepseek_v")
        double = self.expected(torch.float64, causal)
        assert close(values(self.scored(model, rows)), double, 1e-6 if half else 1e-10), "float64"
        of_stock = [
            Scored(one.group, dict(zip(one.scores, right, strict=True)))
            for one, right in zip(found, expected, strict=True)
        ]
        assert report(found, resamples=2)["accuracy"] == report(of_stock, resamples=2)["accuracy"]
        self._check_training(rows, causal=causal)
        return "="

    def _check_training(self, rows: str, *, causal: bool) -> None:
        model = self.train(rows)
        trained = self.folder / "trained"
        trained.mkdir(exist_ok=True)
        saving.save(saving.finish(model), self.words, trained)
        stock = AutoModelForSequenceClassification.from_pretrained(trained).eval()
        expected = stock_scores(stock, self.words, causal=causal)
        assert close(values(self.scored(model, rows)), expected, 1e-5), "trained scores differ"
        right = self.moved["separate"]
        largest = max(change.abs().max() for change in right.values())
        assert largest > 1e-4, "nothing was trained"
        # Phi-3.5 draws its experts at random in training.
        if not causal and model.config.model_type != "phimoe":
            off = max(
                (self.moved[rows][name] - change).abs().max() for name, change in right.items()
            )
            assert off <= 1e-3 * largest, "gradients differ"


def values(found: list[Scored]) -> list[list[float]]:
    return [list(one.scores.values()) for one in found]


def letter(outcome: str) -> str:
    """``=``, or the letter of :data:`REFUSALS`."""
    return outcome if outcome == "=" else next(k for k, part in REFUSALS.items() if part in outcome)


def line(name: str, cells: Iterable[str]) -> str:
    """A row of the table."""
    return "| " + " | ".join([name, f"`{ARCHITECTURES[name][0]}`", *cells]) + " |"


def cells(name: str) -> list[str]:
    """The outcome of one architecture in each of :data:`ROWS`."""
    with tempfile.TemporaryDirectory() as folder:
        return list(map(letter, map(Matrix(name, Path(folder)).outcome, ROWS)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for one in sys.argv[1:] or ARCHITECTURES:
        sys.stdout.write(line(one, cells(one)) + "\n")
        sys.stdout.flush()
