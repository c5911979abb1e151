"""Human preference data from the folder that ``POSTTRAIN_DATA`` names."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from posttrain.data.preferences import RankedGroup, fingerprint, from_record
from posttrain.data.reading import read_groups
from posttrain.data.sources.originals.registry import ORIGINALS
from posttrain.errors import UserError

VARIABLE = "POSTTRAIN_DATA"

#: Where an untouched original lies under ``raw/``, as the public repositories name or nest it.
RAW_NAMES = {
    "ukpconvarg": ("ukpconvarg1_full_xml.tar.xz", "UKPConvArg1-full-XML"),
    "seeda": ("seeda.tar.xz", "SEEDA"),
    "finegrained_rlhf": ("finegrained_rlhf_dev_feedback.json.xz", "dev_feedback.json"),
    "hh_harmless": ("hh_harmless_base_test.jsonl.gz", "test.jsonl.gz"),
    "pku_safety": ("pku_seferlhf_realign_dpo_5k.json.xz", "pku_seferlhf_realign_dpo_5k.json"),
    "xstest": ("xstest_model_completions.tar.xz", "model_completions"),
    "rmb_helpfulness": ("Pairwise_set",),
    "rmb_safety": ("Pairwise_set",),
}


def folder() -> Path:
    """The folder of human preference data; a UserError if the variable names none."""
    value = os.environ.get(VARIABLE)
    if not value or not Path(value).is_dir():
        problem = f"{VARIABLE} is not set" if not value else f"{VARIABLE}={value} is not a folder"
        raise UserError(
            f"{problem}: set it to the folder that holds the human preference data "
            '(book/data.md, "Human preference data", says where each set comes from)'
        )
    return Path(value)


def own_file(name: str) -> Path | None:
    """The file of a data set in the folder; None without one, or where an original wins over it."""
    base = Path(os.environ.get(VARIABLE) or os.devnull)
    if any((base / "raw" / raw).exists() for raw in RAW_NAMES.get(name, ())):
        return None
    paths = (base / f"{name}{suffix}" for suffix in (".jsonl.gz", ".jsonl", ".parquet"))
    return next((path for path in paths if path.exists()), None)


def load(name: str) -> tuple[list[RankedGroup], dict[str, Any]]:
    """Ranked groups of one data set, and where they came from.

    The name is a key of :data:`.originals.registry.ORIGINALS`, or the stem of a file. An untouched
    original under ``raw/`` is converted on the fly and wins over a converted file, so that a
    correction of a converter reaches every later run. With the groups come
    ``{"file", "groups", "fingerprint"}``, and ``dropped`` where the converter left judgements out.

    Raises:
        UserError: If there is no such data, or a record is bad.
    """
    base = folder()
    for raw in RAW_NAMES.get(name, ()):
        if (base / "raw" / raw).exists():
            dropped: Counter[str] = Counter()
            records = ORIGINALS[name].convert(base / "raw" / raw, dropped)
            groups = [
                from_record(record, where=f"{raw}, record {number}")
                for number, record in enumerate(records)
            ]
            return groups, _describe(f"raw/{raw}", groups) | {"dropped": dict(dropped)}
    path = own_file(name)
    if path is not None:
        groups = read_groups(path).groups
        return groups, _describe(path.name, groups)
    raise UserError(
        f"{VARIABLE} names {base}, which holds no {name}.jsonl.gz, {name}.jsonl or {name}.parquet, "
        'and no original of it under raw/; book/data.md, "Human preference data", says how '
        "to get it"
    )


def _describe(file: str, groups: list[RankedGroup]) -> dict[str, Any]:
    return {"file": file, "groups": len(groups), "fingerprint": fingerprint(groups)}
