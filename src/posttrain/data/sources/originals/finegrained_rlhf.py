"""QA-Feedback of Fine-Grained RLHF: long answers from evidence, compared and corrected by people.

Source: Wu et al., NeurIPS 2023. Each example has a question, evidence passages (a title followed
by sentences), four sampled answers `prediction 1` to `prediction 4`, six pairwise preferences in
the order 1–2, 1–3, 1–4, 2–3, 2–4, 3–4 (1 the first is better, 2 the second, 0 no preference), and
a version of prediction 1 that the annotator corrected, `feedback.corrected-prediction`.

Rules:

* *Prompt*: the question, an empty line, then one line per passage, `title: sentences`. Two public
  examples have no passage; their prompt is the question alone.
* *Chosen* and *rejected* follow the preference. The source grades no strength, so it is null.
* *Edited*: the corrected prediction, only where prediction 1 won, because only prediction 1 was
  corrected: elsewhere nothing orders the correction against the winner. Null too where the
  correction is empty or changed nothing. That a correction beats what it corrects is the premise
  of edited > chosen > rejected; no annotator compared the two.
* *Group*: a hash of the question.
* `id` numbers the records.

Dropped, and counted by reason (public `dev_feedback.json`):

* `no preference`: the annotator saw no difference (384 comparisons of 3,000).
* `empty answer`, `identical answers`: nothing to learn from (none).

Corrections that changed nothing are no loss of a record, so they are not counted as dropped
(16 rows). The public file gives 2,616 rows; `train_feedback.json` has the same format.
"""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from posttrain.data.sources.originals.files import read_text, required, short_hash
from posttrain.errors import UserError

DOWNLOAD = (
    "Download tasks/qa_feedback/data/dev_feedback.json from "
    "https://github.com/allenai/FineGrainedRLHF and pass that file, plain or as .gz or .xz."
)
COMPARISONS = tuple(combinations((1, 2, 3, 4), 2))
CORRECTED = 1
"""The only prediction that annotators corrected."""


def convert(path: Path, dropped: Counter[str] | None = None) -> Iterator[dict[str, Any]]:
    """Convert `dev_feedback.json` or `train_feedback.json` into preference records."""
    dropped = Counter() if dropped is None else dropped
    number = 0
    for position, example in enumerate(read_examples(path), start=1):
        where = f"{path}, example {position}"
        question = required(example, "question", str, where, DOWNLOAD).strip()
        prompt = "\n\n".join(part for part in (question, format_passages(example, where)) if part)
        answers = {
            which: required(example, f"prediction {which}", str, where, DOWNLOAD).strip()
            for which in (1, 2, 3, 4)
        }
        feedback = required(example, "feedback", dict, where, DOWNLOAD)
        corrected = required(feedback, "corrected-prediction", str, where, DOWNLOAD).strip()
        for (first, second), preference in zip(
            COMPARISONS, read_preferences(example, where), strict=True
        ):
            if preference == 0:
                dropped["no preference"] += 1
                continue
            winner, loser = (first, second) if preference == 1 else (second, first)
            chosen, rejected = answers[winner], answers[loser]
            if not chosen or not rejected:
                dropped["empty answer"] += 1
                continue
            if chosen == rejected:
                dropped["identical answers"] += 1
                continue
            improved = winner == CORRECTED and corrected not in ("", chosen, rejected)
            yield {
                "id": f"finegrained_rlhf-{number:05d}",
                "prompt": prompt,
                "chosen": chosen,
                "rejected": rejected,
                "edited": corrected if improved else None,
                "strength": None,
                "group": f"q{short_hash(question)}",
            }
            number += 1


def read_examples(path: Path) -> list[Any]:
    """Read the list of examples."""
    text = read_text(path, DOWNLOAD)
    try:
        examples = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}). {DOWNLOAD}"
        ) from error
    if not isinstance(examples, list):
        raise UserError(f"{path}: must be a list of examples. {DOWNLOAD}")
    return examples


def format_passages(example: Any, where: str) -> str:
    """Write the evidence as one line per passage: its title, a colon, its sentences."""
    lines = []
    for passage in required(example, "passages", list, where, DOWNLOAD):
        is_text = isinstance(passage, list) and all(isinstance(part, str) for part in passage)
        if not is_text or not passage:
            raise UserError(
                f"{where}: field 'passages' must hold lists of a title and sentences. {DOWNLOAD}"
            )
        title, *sentences = passage
        lines.append(f"{title}: {' '.join(sentences)}")
    return "\n".join(lines)


def read_preferences(example: Any, where: str) -> list[int]:
    """Return the six preferences, each 0, 1 or 2."""
    preferences = required(example, "preference", list, where, DOWNLOAD)
    if len(preferences) != len(COMPARISONS) or any(value not in (0, 1, 2) for value in preferences):
        raise UserError(
            f"{where}: field 'preference' must hold six values 0, 1 or 2, found {preferences}. "
            f"{DOWNLOAD}"
        )
    return preferences
