"""Bring run records in book/results to the names that the code uses now. Numbers are not touched.

Run once, from the root: python book/migrate_records.py. A record that has the new names already is
left as it is. Keys of tables are ASCII, so that they can be typed; see CHANGELOG.md for the list.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from posttrain.evidence import records

#: Columns of tables whose values are keys; all others may hold people's texts.
KEY_COLUMNS = {"arm", "contrast", "layout", "metric", "tested", "trained", "value"}
#: Settings that were renamed.
SETTINGS = {
    "centring": "center_rewards_coefficient",
    "objective": "loss_type",
    "part_tokens": "max_tokens_per_device",
    "row_tokens": "pack_length",
}


def renamed(key: Any) -> Any:
    """The present name of a key; anything else as it is."""
    if not isinstance(key, str):
        return key
    # One reading of Llama 3's row must not bear its name.
    key = re.sub(r"^llama3(?=$|, ranked$)", "causal", key)
    # What annotators make is a comparison; pairs are what the loss has.
    key = re.sub(r"\b(one|two) more pair(s?)$", r"\1 more comparison\2", key)
    return key.replace("−", "-").replace("–", "-")


def migrated(record: records.Record) -> records.Record:
    """A record with the present names."""
    tables = {
        name: table.assign(
            **{column: table[column].map(renamed) for column in table if column in KEY_COLUMNS}
        )
        for name, table in record.tables.items()
    }
    return replace(record, settings=_settings(record.settings), tables=tables)


def _settings(value: Any) -> Any:
    if isinstance(value, dict):
        return {SETTINGS.get(key, key): _settings(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_settings(part) for part in value]
    return renamed(value)


if __name__ == "__main__":
    results = Path(__file__).parent / "results"
    for path in sorted(results.glob("*.json")):
        before = path.read_bytes()
        records.save(migrated(records.load(path)), results)
        if path.read_bytes() != before:
            print(f"renamed keys in {path.name}")
