"""``posttrain dpo``: train a language model on preferences by direct preference optimisation."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from posttrain.commands.common import parse
from posttrain.commands.language_models import load_policy, trainable_policy
from posttrain.commands.policy_data import preferences
from posttrain.commands.policy_run import run as run_policy
from posttrain.commands.policy_settings import DpoSettings
from posttrain.errors import UserError
from posttrain.models import embedded
from posttrain.models.loading import contents as contents_of
from posttrain.models.loading import load_tokenizer
from posttrain.policy.dpo import PreferenceConfig, preference_trainer
from posttrain.rows.rendering import tokenizer_hash


def main(arguments: Sequence[str]) -> int:
    """Run ``posttrain dpo`` and return its exit code."""
    settings, config = parse(
        "dpo",
        (DpoSettings, PreferenceConfig),
        "Train a language model on preferences and save it in --output_dir, a folder that "
        "transformers, TRL and posttrain load. Data are those of posttrain train; the loss is that "
        "of Llama 3 (section 4.1.4).",
        arguments,
    )
    if run(settings, config):
        print(f"wrote {config.output_dir}: the model, its card README.md, and run.json")
    return 0


def run(settings: DpoSettings, config: PreferenceConfig) -> dict[str, Any]:
    """See :func:`.policy_run.run`."""

    def prepare(model: Any, tokenizer: Any) -> tuple[Any, dict[str, Any], dict[str, str | None]]:
        reference, contents = _reference(settings, model, tokenizer)
        rows, account = preferences(settings, config, model, tokenizer)
        trainer = preference_trainer(
            model, tokenizer, rows, config, reference, peft_config=settings.adapters()
        )
        return trainer, account, contents

    return run_policy("dpo", settings, config, prepare)


def _reference(
    settings: DpoSettings, model: Any, tokenizer: Any
) -> tuple[Any, dict[str, str | None]]:
    """The reference that was asked for, in the model's precision, and its hash; None: the model."""
    name = settings.reference
    if name is None:
        return None, {}
    checkpoint = embedded.find(name)
    template = tokenizer.chat_template
    if tokenizer_hash(load_tokenizer(checkpoint, chat_template=template, pads=False)) != (
        tokenizer_hash(tokenizer)
    ):
        raise UserError(
            f"the reference {name} has another tokenizer than {settings.model}, so tokens mean "
            "something else to it; take a reference of the same family"
        )
    reference, _ = load_policy(replace(settings, model=name))
    reference = trainable_policy(reference, settings, lora_rank=0).to(model.dtype)
    return reference, {"reference": contents_of(checkpoint)}
