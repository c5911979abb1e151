"""The card of a trained reward model: data, settings, metrics, limits, and how to score."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCardData

from posttrain.evaluation.report import figures
from posttrain.models.embedded import public_name

TEMPLATE = """---
{header}
---

# Reward model

Scores a response to a prompt: higher is better. Trained with `posttrain` from `{model}` on ranked
responses.

## Use

```python
from transformers import AutoTokenizer, pipeline

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
scorer = pipeline("text-classification", "FOLDER", tokenizer=tokenizer)
conversation = [
    {{"role": "user", "content": "Why is the sky blue?"}},
    {{"role": "assistant", "content": "Air scatters blue light most."}},
]
text = tokenizer.apply_chat_template(conversation, tokenize=False)
# The chat template writes all special tokens itself; a second one in front changes the score.
scorer(text, add_special_tokens=False)[0]["score"]
```

Or, for files: `posttrain score --model FOLDER --data mine.jsonl --output scores.jsonl`.

Only differences of scores of responses to the *same* prompt have a meaning: σ(difference) is the
probability that the first is preferred. Scores of different prompts cannot be compared.

## Data

{data}

## Evaluation

{evaluation}

## Training

{training}

The whole account, with every setting and version, is in `run.json`.

## Limits

- It ranks as the annotators of its data did, their errors and their taste for length included;
  compare its accuracy with that of the length baseline above.
- It knows no texts unlike those of its data. Best-of-n and reinforcement learning look for
  responses that it overrates, and the more so the harder they search.
- The licences of the data and of `{model}` apply.
"""

#: Settings that a reader of the card wants to see.
SHOWN = (
    "model_revision", "mix", "layout", "pairs", "weighting", "margins", "min_strength",
    "max_tokens", "lora_rank", "top_layers", "dtype", "loss_type", "center_rewards_coefficient",
    "learning_rate", "lr_scheduler_type", "num_train_epochs", "max_steps", "pairs_per_step",
    "groups_per_step", "merge_prompts", "weight_decay", "bf16", "seed", "min_difference",
)  # fmt: skip


def model_card(account: Mapping[str, Any]) -> str:
    """The text of the card, from what :func:`posttrain.commands.train.run` records of a run."""
    settings = account["settings"]
    header = ModelCardData(
        base_model=public_name(settings["model"]),
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["reward-model", "posttrain"],
    )
    return TEMPLATE.format(
        header=header.to_yaml(),
        model=settings["model"],
        data=data_lines(account["data"]),
        evaluation=_evaluation(account["evaluation"]),
        training=_training(account),
    )


def data_lines(counts: Mapping[str, Any]) -> str:
    """What a run read and left out, in Markdown."""
    lines = [f"Sources: {', '.join(f'`{source}`' for source in counts['sources'])}.", ""]
    for part in ("training", "evaluation"):
        if part in counts:
            found = ", ".join(f"{number:,} {what}" for what, number in counts[part].items())
            lines.append(f"- {part}: {found}")
    if counts["read"]:
        found = ", ".join(f"{number:,} {what}" for what, number in counts["read"].items())
        lines.append(f"- left out while reading: {found}")
    lines += [f"- {note}" for note in counts.get("notes", ())]
    return "\n".join(lines)


def _evaluation(found: Mapping[str, Any]) -> str:
    if not found:
        return "No data were held out."
    if "accuracy" not in found or not isinstance(found["accuracy"], Mapping):
        rows = [(name.removeprefix("eval_"), f"{value:.4g}") for name, value in found.items()]
        return table(("metric", "value"), rows)
    head = ("metric", f"{found['pairs']:,} pairs of {found['groups']:,} groups, 95 % interval")
    return table(head, figures(found))


def _training(account: Mapping[str, Any]) -> str:
    chosen = account["settings"] | account["training"]
    rows = [(name, f"`{chosen[name]}`") for name in SHOWN if name in chosen]
    where, best = account["environment"], account.get("best_step")
    rows += [
        ("steps", f"{account['steps']:,}"),
        *([("the best step, whose model this is", f"{best:,}")] if best else []),
        ("training loss", f"{account['training_loss']:.4f}"),
        ("device", str(where["device"])),
        ("minutes", f"{where['seconds'] / 60:.1f}"),
        ("posttrain", f"{where['versions']['posttrain']}, commit {where['commit']}"),
    ]
    return table(("setting", "value"), rows)


def table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    """A table of two columns in Markdown."""
    lines = (head, ("---", "---"), *rows)
    # A bar would end the cell, also within code.
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
