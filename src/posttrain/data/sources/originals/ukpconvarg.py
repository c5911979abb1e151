"""UKPConvArg1: which of two arguments for the same stance is more convincing.

Source: Habernal and Gurevych, ACL 2016. Thirty-two XML files, one per debate and stance, each a
list of argument pairs. About five crowd workers (four for 190 pairs) voted `a1`, `a2` or `equal`
on every pair.

Rules:

* *Prompt*: the debate's title, then the stance to argue for. *Group*: the debate's title, since
  both stances of a debate share its subject and arguments recur in many pairs.
* *Chosen* has more votes than *rejected*. `equal` votes count for neither. The votes themselves
  decide, not the corpus's `goldLabel`: that label weighs workers by estimated competence and is
  absent for 5 % of the pairs, and its weighting hides how close a vote was.
* *Strength* = min(vote margin, 4), the margin being votes for the winner minus votes for the
  loser: 1, 2, 3, 4, 5 become 1, 2, 3, 4, 4. The margin itself is kept in `vote_margin`.
* `id` numbers the pairs that have a winner, before the last three reasons below drop any.

Dropped, and counted by reason:

* `tied votes`: no winner (1,704 pairs of the public corpus).
* `empty argument`: one side has no text (none).
* `identical arguments`: the same text posted twice and paired with itself; any winner is noise (4).
* `repeated pair`: the same two texts under other ids with the same winner; the first is kept,
  because counting one comparison twice would weigh it double (305). The same two texts with the
  *opposite* winner are kept: that is real disagreement.

The public corpus gives 14,914 rows.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from posttrain.data.sources.originals.files import parse_xml, read_folder
from posttrain.errors import UserError

DOWNLOAD = (
    "Clone https://github.com/UKPLab/acl2016-convincing-arguments and pass its folder "
    "data/UKPConvArg1-full-XML, or a tar archive of that folder."
)
MAXIMUM_STRENGTH = 4


def convert(path: Path, dropped: Counter[str] | None = None) -> Iterator[dict[str, Any]]:
    """Convert the folder `UKPConvArg1-full-XML`, or a tar archive of it, into preference records.

    Beyond the data contract they have `vote_margin`, in votes (1 to 5).
    """
    dropped = Counter() if dropped is None else dropped
    seen: set[tuple[str, str, str]] = set()
    number = -1
    for name, content in read_folder(path, "*.xml", DOWNLOAD):
        root = parse_xml(content, name, DOWNLOAD)
        pairs = root.findall("annotatedArgumentPair")
        if not pairs:
            raise UserError(f"{name}: holds no 'annotatedArgumentPair'. {DOWNLOAD}")
        for position, pair in enumerate(pairs, start=1):
            where = f"{name}, pair {position} ({pair.findtext('id', 'no id')})"
            votes = count_votes(pair, where)
            margin = abs(votes["a1"] - votes["a2"])
            if margin == 0:
                dropped["tied votes"] += 1
                continue
            number += 1
            winner, loser = ("arg1", "arg2") if votes["a1"] > votes["a2"] else ("arg2", "arg1")
            title = text_of(pair, "debateMetaData/title", where)
            stance = text_of(pair, f"{winner}/stance", where)
            if text_of(pair, f"{loser}/stance", where) != stance:
                raise UserError(
                    f"{where}: field 'stance' differs between arg1 and arg2, but only arguments "
                    f"for one stance can be compared. {DOWNLOAD}"
                )
            prompt = f"{title} Argue for the position: {stance}"
            chosen = text_of(pair, f"{winner}/text", where)
            rejected = text_of(pair, f"{loser}/text", where)
            if not chosen.strip() or not rejected.strip():
                dropped["empty argument"] += 1
            elif chosen == rejected:
                dropped["identical arguments"] += 1
            elif (prompt, chosen, rejected) in seen:
                dropped["repeated pair"] += 1
            else:
                seen.add((prompt, chosen, rejected))
                yield {
                    "id": f"ukpconvarg-{number:05d}",
                    "prompt": prompt,
                    "chosen": chosen,
                    "rejected": rejected,
                    "edited": None,
                    "strength": min(margin, MAXIMUM_STRENGTH),
                    "group": title,
                    "vote_margin": margin,
                }


def count_votes(pair: Element, where: str) -> Counter[str]:
    """Count the votes `a1`, `a2` and `equal` of one pair, which has at least one."""
    votes: Counter[str] = Counter()
    for assignment in pair.iterfind("mTurkAssignments/mTurkAssignment"):
        vote = text_of(assignment, "value", where)
        if vote not in ("a1", "a2", "equal"):
            raise UserError(
                f"{where}: field 'value' must be a1, a2 or equal, found {vote!r}. {DOWNLOAD}"
            )
        votes[vote] += 1
    if not votes:
        raise UserError(f"{where}: field 'mTurkAssignments' holds no vote. {DOWNLOAD}")
    return votes


def text_of(element: Element, field: str, where: str) -> str:
    """Return the text of a child element, which may be empty but must be there."""
    text = element.findtext(field)
    if text is None:
        raise UserError(f"{where}: field {field!r} is missing. {DOWNLOAD}")
    return text
