"""The data of ``posttrain train``: read, split, mixed, tokenised, merged and accounted for."""

from dataclasses import replace
from typing import Any

from posttrain.commands.train_settings import TrainSettings
from posttrain.data.mixing import parse_mix
from posttrain.data.store import Stored, stored
from posttrain.models import reward_model
from posttrain.models.rotary import within_boundary
from posttrain.rows.rendering import tokenizer_hash
from posttrain.training.dataset import Tokenized, tokenized
from posttrain.training.merging import Merging


def prepare(
    settings: TrainSettings, merging: Merging | None, model: Any, tokenizer: Any
) -> tuple[Tokenized, tuple[Stored, Tokenized] | None, dict[str, Any], dict[str, str | None]]:
    """Training data, data to evaluate on, an account of both, and hashes of their contents."""
    groups = stored(settings.data, **settings.reading)
    held_out = None
    if settings.eval_data:
        held_out = stored(settings.eval_data, **settings.reading)
    elif settings.eval_fraction:
        groups, held_out = groups.split(
            test_fraction=settings.eval_fraction, seed=settings.split_seed
        )
    reward_model.check_padding(tokenizer, next(iter(groups)))
    read, left_out = groups.counts, dict[str, int]()
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
        settings.limits(model),
        skipped_end=tokenizer.pad_token_id,
        skip_unreadable=settings.skip_bad,
    )
    if settings.max_tokens is None:
        limits = within_boundary(model.config, limits, settings.rows)

    def prepared(part: Stored) -> tuple[Tokenized, dict[str, int]]:
        made = tokenized(
            part,
            tokenizer,
            settings.pairing(),
            limits,
            merging=merging,
            processes=settings.processes,
        )
        by_domain = made.domains if len(made.domains) > 1 or settings.mix is not None else {}
        return made, made.counts | {
            "groups without a domain" if name is None else f"groups in {name}": count
            for name, count in by_domain.items()
        }

    contents = {
        "training data": groups.fingerprint,
        "evaluation data": None if held_out is None else held_out.fingerprint,
        "tokenizer and chat template": tokenizer_hash(tokenizer),
    }
    training, found = prepared(groups)
    counts: dict[str, Any] = {"sources": settings.data, "read": read}
    counts["notes"] = groups.notes.lines()
    if settings.eval_data and held_out is not None:
        counts["notes"] += [f"evaluation data: {note}" for note in held_out.notes.lines()]
    if getattr(tokenizer, "pinned_day", None):
        counts["notes"].append(
            f"the chat template writes today's date, which is fixed to {tokenizer.pinned_day}"
        )
    counts |= {"training": found | left_out, "fingerprint": groups.fingerprint}
    if held_out is None:
        return training, None, counts, contents
    evaluation, found = prepared(held_out)
    return training, (held_out, evaluation), counts | {"evaluation": found}, contents
