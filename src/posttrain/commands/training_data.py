"""The data of ``posttrain train``: read, split, mixed, tokenised and accounted for."""

from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from posttrain.commands.train_settings import TrainSettings
from posttrain.data.formats import BadFile
from posttrain.data.messages import BadRecord
from posttrain.data.mixing import parse_mix
from posttrain.data.store import Stored, stored
from posttrain.errors import UserError
from posttrain.models import reward_model
from posttrain.models.rotary import within_boundary
from posttrain.rows.rendering import tokenizer_hash
from posttrain.training.dataset import Tokenized, tokenized
from posttrain.training.merging import Merging


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on and is evaluated on, before any weights are read.

    Attributes:
        training: What is trained on.
        evaluation: What is evaluated on while training; None: nothing is held out.
        held_out: The groups of that, for the evaluation at the end.
        left_out: Numbers of groups that a mix leaves out, by what they are; None: nothing is mixed.
        account: Sources, what was left out while reading, and notes, as ``run.json`` has them.
        contents: Hashes of data and tokenizer by name.
    """

    training: Tokenized
    evaluation: Tokenized | None
    held_out: Stored | None
    left_out: dict[str, int] | None
    account: dict[str, Any]
    contents: dict[str, str | None]

    def merged(self, merging: Merging | None) -> "TrainingData":
        """The same with groups of one prompt merged (see :meth:`.Tokenized.merged`)."""
        evaluation = self.evaluation and self.evaluation.merged(merging)
        return replace(self, training=self.training.merged(merging), evaluation=evaluation)

    @property
    def counts(self) -> dict[str, Any]:
        """The account with the numbers of both parts."""
        parts = {"training": self._counts_of(self.training) | (self.left_out or {})}
        if self.evaluation is not None:
            parts["evaluation"] = self._counts_of(self.evaluation)
        return self.account | parts

    def _counts_of(self, part: Tokenized) -> dict[str, int]:
        by_domain = part.domains if len(part.domains) > 1 or self.left_out is not None else {}
        return part.counts | {
            "groups without a domain" if name is None else f"groups in {name}": count
            for name, count in by_domain.items()
        }


def prepare(
    settings: TrainSettings, skeleton: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> TrainingData:
    """Read and tokenise all data for a model of which only the skeleton is there.

    Raises:
        UserError: If a record is bad, cannot be read by the model or is too long, unless settings
            leave such records out; if none is left; or if the padding token ends responses.
    """
    held_out = None
    try:
        groups = stored(settings.data, **settings.reading)
        if settings.eval_data:
            held_out = stored(settings.eval_data, **settings.reading)
    except BadFile:
        raise
    except BadRecord as error:
        raise UserError(
            f"{error}; posttrain data check lists all bad records, --skip_bad leaves them out"
        ) from None
    if not settings.eval_data and settings.eval_fraction:
        groups, held_out = groups.split(
            test_fraction=settings.eval_fraction, seed=settings.split_seed
        )
    reward_model.check_padding(tokenizer, next(iter(groups)))
    read, left_out = groups.counts, None
    if settings.mix is not None:
        available = groups.domains()
        groups = groups.mixed(parse_mix(settings.mix), seed=settings.split_seed)
        taken = groups.domains()
        left_out = {
            f"groups in {name} left out by the mix": count - taken.get(name, 0)
            for name, count in available.items()
            if count > taken.get(name, 0)
        }
    # Stock classes will read what is saved with this padding token.
    limits = replace(
        settings.limits(skeleton),
        skipped_end=tokenizer.pad_token_id,
        skip_unreadable=settings.skip_bad,
    )
    if settings.max_tokens is None:
        limits = within_boundary(skeleton.config, limits, settings.rows)

    def read_by_model(part: Stored) -> Tokenized:
        return tokenized(part, tokenizer, settings.pairing(), limits, processes=settings.processes)

    notes = groups.notes.lines()
    if settings.eval_data and held_out is not None:
        notes += [f"evaluation data: {note}" for note in held_out.notes.lines()]
    if getattr(tokenizer, "pinned_day", None):
        notes.append(
            f"the chat template writes today's date, which is fixed to {tokenizer.pinned_day}"
        )
    return TrainingData(
        read_by_model(groups),
        None if held_out is None else read_by_model(held_out),
        held_out,
        left_out,
        account={
            "sources": settings.data,
            "read": read
            | (
                {}
                if held_out is None or not settings.eval_data
                else {f"{what} of eval_data": count for what, count in held_out.counts.items()}
            ),
            "notes": notes,
            "fingerprint": groups.fingerprint,
        },
        contents={
            "training data": groups.fingerprint,
            "evaluation data": None if held_out is None else held_out.fingerprint,
            "tokenizer and chat template": tokenizer_hash(tokenizer),
        },
    )
