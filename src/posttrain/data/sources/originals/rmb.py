"""RMB: answers of models that score higher and lower, for helpfulness and for harmlessness.

Source: Zhou et al., ICLR 2025. A benchmark of reward models, whose pairwise set has a JSON list per
kind of task (`Helpfulness/*/*.json`) or of harm (`Harmlessness/*.json`). Each pair has
`conversation_input`, turns with `role`, `content` and `language`, and two answers, `chosen` and
`reject`, with `answer` and the name of a model. The scores that order them probably come from a
model, so this is for evaluation beside data that people labelled, not instead of it.

Rules:

* Only short pairs in English are converted, so that small models can read them whole: the last turn
  is marked `English`, the prompt has at most 120 words, roles included, and each answer at most
  200. A program seems to have made the marks (`hello` counts as Sotho). Earlier turns may be in
  another language, and so may answers, which have no mark: in translations they are.
* *Prompt*: the turns, `role: content`, with an empty line between two of them; without the first
  `user: `, so that a single turn stands as it is. *Group*: a hash of it as it is in the file.
* Leading and trailing white space of prompt and responses is removed.
* People graded no strength and edited nothing: both are null. The difference of scores is not used.
* *Domain* is `helpfulness` or `safety`, after the folder.
* Pairs come in the order of the names of the files, and within a file in its order. `id` numbers
  the short pairs in English, so gaps show what else was dropped.

Dropped, and counted by reason: `not English`, `long prompt`, `long response`; and then
`empty prompt`, `empty response`, `identical responses`, `contradicted pair` and `repeated pair`, as
:mod:`.comparisons` explains them.
"""

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from posttrain.data.sources.originals.comparisons import distinct
from posttrain.data.sources.originals.files import decode, read_folder, required, short_hash
from posttrain.errors import UserError

DOWNLOAD = (
    "Clone https://github.com/Zhou-Zoey/RMB-Reward-Model-Benchmark and pass its folder "
    "RMB_dataset/Pairwise_set."
)
FILES = {"helpfulness": "Helpfulness/*/*.json", "safety": "Harmlessness/*.json"}
"""The files of each domain, relative to the folder."""
PROMPT_WORDS = 120
"""The longest prompt, with its roles, in words."""
RESPONSE_WORDS = 200
"""The longest response in words."""


def convert(
    path: Path, dropped: Counter[str] | None = None, *, domain: str
) -> Iterator[dict[str, Any]]:
    """Convert the folder `Pairwise_set` into preference records of one domain, a key of `FILES`."""
    dropped = Counter() if dropped is None else dropped
    yield from distinct(short_pairs(path, dropped, domain), dropped)


convert_helpfulness = partial(convert, domain="helpfulness")
"""Convert the pairs of the folder Helpfulness."""
convert_safety = partial(convert, domain="safety")
"""Convert the pairs of the folder Harmlessness."""


def short_pairs(path: Path, dropped: Counter[str], domain: str) -> Iterator[dict[str, Any]]:
    """Yield a record for every pair that is in English and short enough."""
    number = 0
    for name, content in read_folder(path, FILES[domain], DOWNLOAD):
        for position, pair in enumerate(read_list(content, name), start=1):
            where = f"{name}, pair {position}"
            turns = required(pair, "conversation_input", list, where, DOWNLOAD)
            whole, english = read_turns(turns, where)
            chosen, rejected = (read_answer(pair, side, where) for side in ("chosen", "reject"))
            if not english:
                dropped["not English"] += 1
            elif len(whole.split()) > PROMPT_WORDS:
                dropped["long prompt"] += 1
            elif max(len(answer.split()) for answer in (chosen, rejected)) > RESPONSE_WORDS:
                dropped["long response"] += 1
            else:
                yield {
                    "id": f"rmb_{domain}-{number:05d}",
                    "prompt": whole.removeprefix("user: ").strip(),
                    "chosen": chosen.strip(),
                    "rejected": rejected.strip(),
                    "edited": None,
                    "strength": None,
                    "group": f"r{short_hash(whole)}",
                    "domain": domain,
                }
                number += 1


def read_list(content: bytes, name: str) -> list[Any]:
    """Read the pairs of one file, a JSON list."""
    try:
        pairs = json.loads(decode(content, name, DOWNLOAD))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{name}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}). {DOWNLOAD}"
        ) from error
    if not isinstance(pairs, list):
        raise UserError(f"{name}: must be a list of pairs. {DOWNLOAD}")
    return pairs


def read_turns(turns: list[Any], where: str) -> tuple[str, bool]:
    """Write turns of a conversation as one text, and tell whether the last is marked English."""
    if not turns:
        raise UserError(f"{where}: field 'conversation_input' holds no turn. {DOWNLOAD}")
    texts = []
    language = ""
    for turn in turns:
        role, content, language = (
            required(turn, field, str, where, DOWNLOAD) for field in ("role", "content", "language")
        )
        texts.append(f"{role}: {content}")
    return "\n\n".join(texts), language == "English"


def read_answer(pair: Any, side: str, where: str) -> str:
    """Return the text of the answer `chosen` or `reject`."""
    answer = required(pair, side, dict, where, DOWNLOAD)
    text: str = required(answer, "answer", str, f"{where}, field {side!r}", DOWNLOAD)
    return text
