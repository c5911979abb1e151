"""Examples of edited responses for readers: texts with the edit marked, and how scores moved."""

import html
from collections.abc import Sequence
from difflib import SequenceMatcher

import pandas as pd

from posttrain.claims import estimate
from posttrain.preferences import RESPONSES
from posttrain.records import Record
from posttrain.studies.edits_metrics import KINDS
from posttrain.studies.report import with_interval

#: Longest text of a prompt that is shown, in characters.
LONGEST_PROMPT = 280


def marked(chosen: str, edited: str) -> str:
    """HTML of the edited text with what an editor took out and put in, word by word."""
    before, after = chosen.split(), edited.split()
    parts = []
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for _, i, j, k, m in matcher.get_opcodes():
        old, new = (html.escape(" ".join(words)) for words in (before[i:j], after[k:m]))
        if old == new:
            parts.append(old)
        else:
            parts += [f"<del>{old}</del>"] * bool(old) + [f"<ins>{new}</ins>"] * bool(new)
    return " ".join(parts)


def examples_html(record: Record) -> str:
    """The examples of a record as HTML: texts with the edit marked, scores before and after."""
    pieces = []
    for number, part in record.tables["examples"].groupby("example"):
        rows = part.set_index("role")
        prompt = str(rows.loc["prompt", "text"])
        shown = prompt if len(prompt) <= LONGEST_PROMPT else f"…{prompt[-LONGEST_PROMPT:]}"
        cells = []
        for role in RESPONSES:
            text = str(rows.loc[role, "text"])
            edited = role == "edited"
            seen = marked(str(rows.loc["chosen", "text"]), text) if edited else html.escape(text)
            scores = "".join(
                f'<td style="padding:0 1em">{float(rows.loc[role, stage]):+.2f}</td>'.replace(
                    "-", "−"
                )
                for stage in ("before", "after")
            )
            cells.append(f'<tr><th>{role}</th><td style="text-align:left">{seen}</td>{scores}</tr>')
        pieces.append(
            f"<p><b>Example {number}.</b> Prompt: <i>{html.escape(shown)}</i></p>"
            "<table style='margin-left:0; border-spacing:1em 0; border-collapse:separate'>"
            "<thead><tr><th></th><th>response</th><th>score before</th>"
            f"<th>score after</th></tr></thead><tbody>{''.join(cells)}</tbody></table>"
        )
    return "\n".join(pieces)


def moves_table(record: Record) -> pd.DataFrame:
    """How a small step on each pair alone moves the scores; the largest of an example is 1."""
    # Adding zero turns -0 into 0.
    return record.tables["moves"].set_index(["example", "pair"]).round(2) + 0.0


def learned_table(records: Sequence[Record]) -> pd.DataFrame:
    """Accuracy (%) on held-out triples after training on edits, by kind of pair."""
    rows = {
        record.source: {
            kind: with_interval(estimate(record.tables["accuracy"], metric=kind), sign=False)
            for kind in KINDS
        }
        for record in records
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("source")
