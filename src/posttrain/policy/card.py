"""The card of a trained language model: data, settings, what was logged, limits, and how to use."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCardData

from posttrain.models.embedded import public_name
from posttrain.training.model_card import data_lines, table

TEMPLATE = """---
{header}
---

# {title}

{what} from `{model}`, with `posttrain {command}`.

## Use

```python
from transformers import pipeline

generator = pipeline("text-generation", "FOLDER")
generator([{{"role": "user", "content": "Why is the sky blue?"}}], max_new_tokens=256)
```

Or, for files: `posttrain sample --model FOLDER --data mine.jsonl --output samples.jsonl`.

## Data

{data}

## Training

{training}

The whole account, with every setting and version, is in `run.json`.

## Limits

- The numbers above are of training; how good its responses are they do not say. Have samples
  compared, or score them with a reward model that did not choose the data.
- The licences of the data and of `{model}` apply.
"""

#: Title and first words, by command.
TITLES = {
    "sft": ("Language model finetuned on demonstrations", "Trained on responses (SFT)"),
    "dpo": ("Language model trained on preferences", "Trained on pairs of responses (DPO)"),
}
#: Settings that a reader of the card wants to see.
SHOWN = (
    "reference", "min_strength", "min_difference", "dtype", "lora_rank", "learning_rate",
    "lr_scheduler_type", "warmup_steps", "num_train_epochs", "max_steps",
    "per_device_train_batch_size", "gradient_accumulation_steps", "max_length", "weight_decay",
    "bf16", "beta", "mask_format_tokens", "nll_weight", "nll_normalization", "seed",
)  # fmt: skip


def policy_card(command: str, account: Mapping[str, Any]) -> str:
    """The text of the card, from what :mod:`posttrain.commands.policy_run` records of a run."""
    settings = account["settings"]
    title, what = TITLES[command]
    header = ModelCardData(
        base_model=public_name(settings["model"]),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=[command, "posttrain"],
    )
    chosen = settings | account["training"]
    rows = [(name, f"`{chosen[name]}`") for name in SHOWN if name in chosen]
    where = account["environment"]
    loss = f"{account['training_loss']:.4f}"
    rows += [("steps", f"{account['steps']:,}"), ("training loss", loss)]
    rows += [(f"{name}, last logged", f"{value:.4g}") for name, value in account["logged"].items()]
    rows += [
        ("device", str(where["device"])),
        ("minutes", f"{where['seconds'] / 60:.1f}"),
        ("posttrain", f"{where['versions']['posttrain']}, commit {where['commit']}"),
    ]
    return TEMPLATE.format(
        header=header.to_yaml(),
        title=title,
        what=what,
        command=command,
        model=settings["model"],
        data=data_lines(account["data"]),
        training=table(("setting", "value"), rows),
    )
