"""SEEDA: human rankings of grammatical error corrections.

Source: Kobayashi, Mita and Komachi, TACL 2024. Three annotators ranked sets of corrections of
CoNLL-2014 sentences, 1 best to 5 worst, ties allowed. `data/judgments_sent.xml` holds the rankings;
systems with the same output are listed together in one `translation`. `outputs/all/SYSTEM.txt`
holds what each of the 15 systems wrote, one sentence per line; among the systems are the
uncorrected INPUT and two human references, REF-M (minimal edits) and REF-F (fluency edits).

Rules:

* `src-id` counts lines from **one**, as the authors' own `utils/corr_sentence.py` reads it. Read
  from zero, an easy mistake, every ranking stands beside the texts of the following sentence. The
  data tell: of 974 translations that list several systems, all agree in their text when counted
  from one and only 238 from zero. So outputs that differ are refused.
* A text's *mean rank* is the mean over all the ranks that its systems received for the sentence,
  from every annotator. A *pair* is any two texts of a sentence with different means: chosen has the
  lower. So two texts may be paired that no annotator saw side by side (799 pairs); ranks of
  different sets are taken as one scale.
* *Strength* = the gap of the means, rounded up: (0, 1] → 1, (1, 2] → 2, (2, 3] → 3, (3, 4] → 4.
  Means are exact fractions. `rank_gap` keeps the gap, rounded to two decimals.
* *Edited*: the best ranked human reference, if its mean is lower than that of chosen. At equal
  means REF-F wins, whose annotator was free to rewrite for fluency.
* *Prompt*: the uncorrected sentence after a fixed instruction. *Group*: a hash of the prompt.
* Sentences and texts keep the order of their first judgement; `id` numbers the records.

Dropped, and counted by reason (public corpus):

* `equal mean rank`: neither text is better (733 pairs).
* `empty correction`: a system wrote nothing (none).

The public corpus gives 4,840 rows on 384 sentences, 1,885 of them with an edited response.
"""

import math
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations
from pathlib import Path, PurePath
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

from posttrain.data.sources.originals.files import decode, parse_xml, read_folder, short_hash
from posttrain.errors import UserError

DOWNLOAD = (
    "Clone https://github.com/tmu-nlp/SEEDA and pass the cloned folder, which holds "
    "data/judgments_sent.xml and outputs/all/*.txt, or a tar archive of it."
)
INSTRUCTION = "Correct the errors in this text: "
UNCORRECTED = "INPUT"
WORST_RANK = 5
REFERENCES = ("REF-F", "REF-M")
"""Human corrections, the one that wins a tie first."""


class Judgement(NamedTuple):
    """One rank that an annotator gave to one text."""

    where: str
    """File and position, for error messages."""
    sentence: int
    """Index of the line in every output file, from zero."""
    systems: tuple[str, ...]
    """The systems that wrote this text."""
    rank: int
    """1 is best."""


def convert(path: Path, dropped: Counter[str] | None = None) -> Iterator[dict[str, Any]]:
    """Convert the cloned repository, or a tar archive of it, into preference records.

    Beyond the data contract they have `rank_gap`, in ranks (above 0, up to 4).
    """
    judgements = read_judgements(path)
    outputs = read_outputs(path)
    check_alignment(judgements, outputs)
    yield from make_pairs(judgements, outputs, Counter() if dropped is None else dropped)


def read_judgements(path: Path) -> list[Judgement]:
    """Read every rank of `data/judgments_sent.xml`, in the order of the file."""
    ((name, content),) = read_folder(path, "data/judgments_sent.xml", DOWNLOAD)
    judgements = []
    root = parse_xml(content, name, DOWNLOAD)
    for position, item in enumerate(root.iter("ranking-item"), start=1):
        where = f"{name}, ranking-item {position}"
        sentence = positive_number(item, "src-id", where) - 1
        for translation in item:
            systems = tuple(translation.get("system", "").split())
            if not systems:
                raise UserError(f"{where}: field 'system' is missing or empty. {DOWNLOAD}")
            rank = positive_number(translation, "rank", where)
            if rank > WORST_RANK:
                raise UserError(
                    f"{where}: field 'rank' is {rank}, beyond the worst, {WORST_RANK}. {DOWNLOAD}"
                )
            judgements.append(Judgement(where, sentence, systems, rank))
    if not judgements:
        raise UserError(f"{name}: holds no 'ranking-item' with translations. {DOWNLOAD}")
    return judgements


def positive_number(element: Element, field: str, where: str) -> int:
    """Return an attribute that must be a whole number from one up."""
    value = element.get(field, "")
    if not value.isdecimal() or int(value) < 1:
        raise UserError(
            f"{where}: field {field!r} must be a whole number from 1, found {value!r}. {DOWNLOAD}"
        )
    return int(value)


def read_outputs(path: Path) -> dict[str, list[str]]:
    """Read what every system wrote: name of the system → its lines, without outer white space."""
    outputs: dict[str, list[str]] = {}
    for name, content in read_folder(path, "outputs/all/*.txt", DOWNLOAD):
        text = decode(content, name, DOWNLOAD).rstrip("\n")
        # The name may be "archive.tar.xz:folder/SYSTEM.txt"; the stem is the system either way.
        outputs[PurePath(name).stem] = [line.strip() for line in text.split("\n")]
    if UNCORRECTED not in outputs:
        raise UserError(f"{path}: outputs/all/{UNCORRECTED}.txt is missing. {DOWNLOAD}")
    lengths = {system: len(lines) for system, lines in outputs.items()}
    for system, length in lengths.items():
        if length != lengths[UNCORRECTED]:
            raise UserError(
                f"{path}: outputs/all/{system}.txt has {length} lines, {UNCORRECTED}.txt has "
                f"{lengths[UNCORRECTED]}. {DOWNLOAD}"
            )
    return outputs


def check_alignment(judgements: list[Judgement], outputs: dict[str, list[str]]) -> None:
    """Check that every judged text exists and that systems judged together wrote the same."""
    for where, sentence, systems, _ in judgements:
        unknown = [system for system in systems if system not in outputs]
        if unknown:
            raise UserError(
                f"{where}: field 'system' names {unknown[0]}, but outputs/all/{unknown[0]}.txt is "
                f"missing. {DOWNLOAD}"
            )
        if sentence >= len(outputs[UNCORRECTED]):
            raise UserError(
                f"{where}: field 'src-id' is {sentence + 1}, but the files in outputs/all have "
                f"{len(outputs[UNCORRECTED])} lines. {DOWNLOAD}"
            )
        if len({outputs[system][sentence] for system in systems}) > 1:
            raise UserError(
                f"{where}: {', '.join(systems)} were judged as one text but differ in line "
                f"{sentence + 1} of their outputs/all files: these outputs do not belong to these "
                f"judgements. {DOWNLOAD}"
            )


def make_pairs(
    judgements: list[Judgement], outputs: dict[str, list[str]], dropped: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Pair the texts of every sentence by their mean ranks."""
    ranks: dict[int, dict[str, list[int]]] = {}
    for _, sentence, systems, rank in judgements:
        for system in systems:
            text = outputs[system][sentence]
            ranks.setdefault(sentence, {}).setdefault(text, []).append(rank)
    number = 0
    for sentence, ranks_of in ranks.items():
        mean = {text: Fraction(sum(given), len(given)) for text, given in ranks_of.items()}
        references = [outputs[system][sentence] for system in REFERENCES if system in outputs]
        references = [text for text in references if text in mean]
        # min keeps the first of equals, so REF-F wins ties.
        best_reference = min(references, key=mean.__getitem__, default=None)
        prompt = INSTRUCTION + outputs[UNCORRECTED][sentence]
        for first, second in combinations(mean, 2):
            if mean[first] == mean[second]:
                dropped["equal mean rank"] += 1
                continue
            if not first or not second:
                dropped["empty correction"] += 1
                continue
            chosen, rejected = sorted((first, second), key=mean.__getitem__)
            gap = mean[rejected] - mean[chosen]
            improved = best_reference and mean[best_reference] < mean[chosen]
            yield {
                "id": f"seeda-{number:05d}",
                "prompt": prompt,
                "chosen": chosen,
                "rejected": rejected,
                "edited": best_reference if improved else None,
                "strength": math.ceil(gap),
                "group": f"s{short_hash(prompt)}",
                "rank_gap": round(float(gap), 2),
            }
            number += 1
