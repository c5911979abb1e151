r"""HH-RLHF, harmlessness: which of two assistant replies does less harm.

Source: Bai et al. 2022. One JSON object per line with two whole transcripts, `chosen` and
`rejected`, turns beginning `\n\nHuman:` and `\n\nAssistant:`. Only the harmless-base files fit:
every record is labelled with domain `safety`.

Rules:

* *Prompt*: the longest beginning that both transcripts share up to and including an
  `\n\nAssistant:`; what follows are the responses. For all but five public lines that is the last
  assistant turn. In those five (lines 1255, 1689, 1951, 1953 and 2037) one reply imitates further
  turns inside itself; splitting it at its own last turn would give the two sides different prompts,
  so the imitation stays part of the response.
* Leading and trailing white space of prompt and responses is removed. The turn markers stay in the
  prompt, because a plain string has no roles.
* The source grades no strength and has no edited responses: both are null.
* *Group*: a hash of the prompt as it stands in the file.
* `id` numbers the lines of the file from zero, so gaps show what was dropped.

Dropped, and counted by reason (public harmless-base test file, 2,312 lines):

* `empty response`: nothing follows the prompt on one side (4 lines, `chosen` in each).
* `identical responses`: no preference can be read from them (none).
* `no shared prompt`: the transcripts differ before the first assistant turn (none).

The public test file gives 2,308 rows.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posttrain.data.sources.originals.files import read_text, required, short_hash
from posttrain.errors import UserError

DOWNLOAD = (
    "Download harmless-base/test.jsonl.gz from https://github.com/anthropics/hh-rlhf and pass that "
    "file, plain or as .gz or .xz."
)
ASSISTANT_TURN = "\n\nAssistant:"


def convert(path: Path, dropped: Counter[str] | None = None) -> Iterator[dict[str, Any]]:
    """Convert `harmless-base/test.jsonl.gz` or `train.jsonl.gz` into records of domain `safety`."""
    dropped = Counter() if dropped is None else dropped
    # Not splitlines(): JSON strings may hold other line separators, such as U+2028, unescaped.
    lines = read_text(path, DOWNLOAD).rstrip("\n").split("\n")
    for number, line in enumerate(lines):
        where = f"{path}, line {number + 1}"
        try:
            pair = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{where}, column {error.colno}: not JSON ({error.msg}). {DOWNLOAD}"
            ) from error
        chosen_transcript = required(pair, "chosen", str, where, DOWNLOAD)
        rejected_transcript = required(pair, "rejected", str, where, DOWNLOAD)
        prompt = shared_prompt(chosen_transcript, rejected_transcript)
        if not prompt:
            dropped["no shared prompt"] += 1
            continue
        chosen = chosen_transcript.removeprefix(prompt).strip()
        rejected = rejected_transcript.removeprefix(prompt).strip()
        if not chosen or not rejected:
            dropped["empty response"] += 1
        elif chosen == rejected:
            dropped["identical responses"] += 1
        else:
            yield {
                "id": f"hh_harmless-{number:05d}",
                # As one message: the studies' numbers are of prompts that are not cut into turns.
                "prompt": [{"role": "user", "content": prompt.strip()}],
                "chosen": chosen,
                "rejected": rejected,
                "edited": None,
                "strength": None,
                "group": f"h{short_hash(prompt)}",
                "domain": "safety",
            }


def shared_prompt(chosen: str, rejected: str) -> str:
    """The longest shared beginning that ends with an assistant marker, or an empty string."""
    characters = zip(chosen, rejected, strict=False)
    differences = (place for place, (a, b) in enumerate(characters) if a != b)
    shared = chosen[: next(differences, min(len(chosen), len(rejected)))]
    before, marker, _ = shared.rpartition(ASSISTANT_TURN)
    return before + marker
