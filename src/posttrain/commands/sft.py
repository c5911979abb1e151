"""``posttrain sft``: finetune a language model on demonstrations."""

from collections.abc import Sequence
from typing import Any

from posttrain.commands.common import parse
from posttrain.commands.policy_data import demonstrations
from posttrain.commands.policy_run import run as run_policy
from posttrain.commands.policy_settings import SftSettings
from posttrain.policy.sft import FinetuningConfig, finetuning_trainer


def main(arguments: Sequence[str]) -> int:
    """Run ``posttrain sft`` and return its exit code."""
    settings, config = parse(
        "sft",
        (SftSettings, FinetuningConfig),
        "Finetune a language model on demonstrations and save it in --output_dir, a folder that "
        "transformers, TRL and posttrain load. Records hold a prompt and a response (or "
        "completion), a conversation (messages), preferences, of which the best response counts, "
        "or responses with scores, as posttrain sample writes them.",
        arguments,
    )
    if run(settings, config):
        print(f"wrote {config.output_dir}: the model, its card README.md, and run.json")
    return 0


def run(settings: SftSettings, config: FinetuningConfig) -> dict[str, Any]:
    """See :func:`.policy_run.run`."""

    def prepare(model: Any, tokenizer: Any) -> tuple[Any, dict[str, Any], dict[str, str | None]]:
        rows, account = demonstrations(settings, config, model, tokenizer)
        trainer = finetuning_trainer(
            model, tokenizer, rows, config, peft_config=settings.adapters()
        )
        return trainer, account, {}

    return run_policy("sft", settings, config, prepare)
