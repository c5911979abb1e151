"""XSTest: complying where that is right, refusing where that is right.

Source: Röttger et al., NAACL 2024. Five models answered 450 prompts, 250 of which are safe although
they look dangerous and 200 of which are unsafe. One CSV file per model, with columns `id`, `type`,
`prompt`, `completion` and `final_label`, to which two people came: `1_full_compliance`,
`2_full_refusal` or `3_partial_refusal`. Types of unsafe prompts begin with `contrast_`.

Nobody compared two answers. The comparisons follow from the labels, by what the authors say a model
should do: comply with safe prompts and refuse unsafe ones.

Rules:

* On a safe prompt full compliance is better than partial refusal, and that than full refusal
  (domain `helpfulness`). On an unsafe prompt the order is the reverse (domain `safety`).
* Every two of the five answers to a prompt are compared, in the order of `MODELS`. Prompts come in
  the order of the files.
* Leading and trailing white space is removed. *Group*: a hash of the prompt.
* Nobody graded strength and there are no edited responses: both are null.
* `id` numbers the comparisons whose labels differ, so gaps show what else was dropped.

Dropped, and counted by reason, of 450 × 10 comparisons:

* `equal labels`: nothing orders the two (2,934).
* `identical responses`, `repeated pair`: two models gave the same answer (1 and 9). The former got
  different labels for it.
* `empty prompt`, `empty response`, `contradicted pair` (none).

That leaves 1,556 rows, 858 of them on safe prompts.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from posttrain.data.sources.originals.comparisons import distinct
from posttrain.data.sources.originals.files import decode, read_folder, required, short_hash
from posttrain.errors import UserError

DOWNLOAD = (
    "Clone https://github.com/paul-rottger/exaggerated-safety and pass its folder "
    "model_completions, or a tar archive of that folder."
)
MODELS = ("mistralinstruct", "llama2new", "llama2orig", "mistralguard", "gpt4")
"""The models that answered, as the names of the files have them."""
COMPLIANCE = {"1_full_compliance": 2, "3_partial_refusal": 1, "2_full_refusal": 0}
"""How far an answer complies, by its label."""
UNSAFE = "contrast_"

Rows = dict[str, dict[str, str]]


def convert(path: Path, dropped: Counter[str] | None = None) -> Iterator[dict[str, Any]]:
    """Convert the folder `model_completions`, or a tar archive of it, into preference records."""
    dropped = Counter() if dropped is None else dropped
    yield from distinct(compare(path, dropped), dropped)


def compare(path: Path, dropped: Counter[str]) -> Iterator[dict[str, Any]]:
    """Yield a record for every two answers whose labels differ."""
    files = read_files(path)
    number = 0
    for key, row in files[MODELS[0]].items():
        prompt = row["prompt"].strip()
        unsafe = row["type"].startswith(UNSAFE)
        for pair in combinations((files[model][key] for model in MODELS), 2):
            worse, better = sorted(pair, key=lambda answer: COMPLIANCE[answer["final_label"]])
            if worse["final_label"] == better["final_label"]:
                dropped["equal labels"] += 1
                continue
            chosen, rejected = (worse, better) if unsafe else (better, worse)
            yield {
                "id": f"xstest-{number:05d}",
                "prompt": prompt,
                "chosen": chosen["completion"].strip(),
                "rejected": rejected["completion"].strip(),
                "edited": None,
                "strength": None,
                "group": f"x{short_hash(prompt)}",
                "domain": "safety" if unsafe else "helpfulness",
            }
            number += 1


def read_files(path: Path) -> dict[str, Rows]:
    """Read the five files, which have the same ids: for each model its rows by `id`."""
    names = {f"xstest_v2_completions_{model}.csv": model for model in MODELS}
    contents = {
        Path(name).name.rpartition(":")[2]: (name, content)
        for name, content in read_folder(path, "xstest_v2_completions_*.csv", DOWNLOAD)
    }
    if missing := sorted(names.keys() - contents.keys()):
        raise UserError(f"{path}: holds no {', '.join(missing)}. {DOWNLOAD}")
    files = {model: read_rows(*contents[name]) for name, model in names.items()}
    first = files[MODELS[0]]
    for name, model in names.items():
        if differing := sorted(files[model].keys() ^ first.keys()):
            raise UserError(
                f"{contents[name][0]}: id {differing[0]!r} stands in this file or in that of "
                f"{MODELS[0]}, but not in both; all models answered the same prompts. {DOWNLOAD}"
            )
    return files


def read_rows(name: str, content: bytes) -> Rows:
    """Read the rows of one file by their `id`; messages give its name and a row's last line."""
    rows: Rows = {}
    lines = csv.DictReader(io.StringIO(decode(content, name, DOWNLOAD), newline=""), strict=True)
    try:
        for line in lines:
            where = f"{name}, line {lines.line_num}"
            row = {
                field: required(line, field, str, where, DOWNLOAD)
                for field in ("id", "type", "prompt", "completion", "final_label")
            }
            if row["final_label"] not in COMPLIANCE:
                raise UserError(
                    f"{where}: field 'final_label' must be one of {', '.join(COMPLIANCE)}, found "
                    f"{row['final_label']!r}. {DOWNLOAD}"
                )
            if row["id"] in rows:
                raise UserError(f"{where}: id {row['id']!r} occurs twice. {DOWNLOAD}")
            rows[row["id"]] = row
    except csv.Error as error:
        raise UserError(
            f"{name}, line {lines.reader.line_num}: not CSV ({error}). {DOWNLOAD}"
        ) from error
    return rows
