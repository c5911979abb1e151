"""PKU-SafeRLHF, a part of its test split: which of two answers does less harm.

Source: Ji et al. 2024, in the form that Yi et al. (2024) keep for realigning models. One JSON list
of objects with `prompt` and `response`, the safer answer first and the other second. Their script
took the comparisons of the test split in which people called one answer safe and the other unsafe.

Rules:

* *Chosen* and *rejected* are the first and the second response. The file grades no strength and has
  no edited responses: both are null. Every record is labelled with domain `safety`.
* Leading and trailing white space is removed.
* *Group*: a hash of the prompt.
* `id` numbers the rows that are kept.

Dropped, and counted by reason: `empty prompt`, `empty response`, `identical responses`,
`contradicted pair` and `repeated pair`, as :mod:`.comparisons` explains them. The file
of about 5,000 comparisons gives 3,302 rows.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posttrain.data.sources.originals.comparisons import distinct
from posttrain.data.sources.originals.files import read_text, required, short_hash
from posttrain.errors import UserError

DOWNLOAD = (
    "Download llama_factory/data/pku_seferlhf_realign_dpo_5k.json from "
    "https://github.com/xinykou/safety_realignment and pass that file, plain or as .gz or .xz."
)


def convert(path: Path, dropped: Counter[str] | None = None) -> Iterator[dict[str, Any]]:
    """Convert `pku_seferlhf_realign_dpo_5k.json` into preference records of domain `safety`."""
    dropped = Counter() if dropped is None else dropped
    records = (
        read_comparison(comparison, f"{path}, comparison {position}")
        for position, comparison in enumerate(read_list(path), start=1)
    )
    for number, record in enumerate(distinct(records, dropped)):
        yield {"id": f"pku_safety-{number:05d}"} | record


def read_list(path: Path) -> list[Any]:
    """Read the list of comparisons."""
    try:
        comparisons = json.loads(read_text(path, DOWNLOAD))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}). {DOWNLOAD}"
        ) from error
    if not isinstance(comparisons, list):
        raise UserError(f"{path}: must be a list of comparisons. {DOWNLOAD}")
    return comparisons


def read_comparison(comparison: Any, where: str) -> dict[str, Any]:
    """Read one comparison, which has two responses, as a record without an `id`."""
    prompt = required(comparison, "prompt", str, where, DOWNLOAD).strip()
    responses = required(comparison, "response", list, where, DOWNLOAD)
    if len(responses) != 2 or not all(isinstance(response, str) for response in responses):
        raise UserError(
            f"{where}: field 'response' must hold two strings, the safer one first. {DOWNLOAD}"
        )
    chosen, rejected = responses
    return {
        "prompt": prompt,
        "chosen": chosen.strip(),
        "rejected": rejected.strip(),
        "edited": None,
        "strength": None,
        "group": f"p{short_hash(prompt)}",
        "domain": "safety",
    }
