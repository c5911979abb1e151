"""Tables of the chapter on preference data."""

import contextlib
import json
import random
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import binomtest

from posttrain.data import check
from posttrain.data.preferences import RESPONSES, STRENGTHS
from posttrain.data.sources.originals.registry import ORIGINALS
from posttrain.data.sources.simulator.annotators import (
    STRENGTH_THRESHOLDS,
    SimulatedGroup,
    reachable_accuracy,
    strength_probabilities,
)
from posttrain.data.sources.simulator.tasks import (
    HELPFULNESS_COST,
    SAFETY_COST,
    Response,
    draw_task,
)
from posttrain.evaluation.metrics import STRATA
from posttrain.evidence.records import Record

#: Edges between which pairs are counted together, in units of gold reward.
GAP_EDGES = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, np.inf)


BETTER_PREFERRED = "better one preferred"


def answer(groups: Sequence[SimulatedGroup], records: Sequence[Record]) -> str:
    """The page's answer in Markdown, with the numbers of these groups and records."""
    reachable = reachable_accuracy([group.difference for group in groups])
    best = {name: f"{share * 100:.0f} %" for name, share in reachable.items()}
    shares = {
        record.source: record.tables["length"].set_index("strength").loc["all", "estimate"] * 100
        for record in records
    }
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    return (
        "**From ranked groups: one prompt, two or three responses, best first, and how much better "
        "the chosen one is. The annotators are noisy, so no reward model agrees with all of them. "
        f"On {len(groups):,} simulated groups, where the truth is known, the best reachable "
        f"accuracy is {best['all']}: {best['1']} where annotators saw a negligible difference, "
        f"{best['4']} where they saw a significant one. Human data have shortcuts too: the longer "
        f"response is the chosen one in {shares[least]:.0f} % ({least}) to {shares[most]:.0f} % "
        f"({most}) of the pairs.**"
    )


def origin_table(records: Sequence[Record]) -> pd.DataFrame:
    """Where each data set comes from: what was compared, repository at commit, licence."""
    rows = {}
    for original in (ORIGINALS[record.source] for record in records):
        rows[original.name] = {
            "what people compared": original.description,
            "repository": original.repository.removeprefix("https://github.com/"),
            "commit": original.revision,
            "licence": original.licence,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def size_table(records: Sequence[Record]) -> pd.DataFrame:
    """What each data set holds and what its converter left out, from this study's records."""
    rows = {}
    for record in records:
        held = record.tables["summary"].iloc[0]
        rows[record.source] = {
            "rows": f"{held['rows']:,}",
            "groups": f"{held['groups']:,}",
            "texts": f"{held['texts']:,}",
            "edited": f"{held['edited']:,}",
            "strength 1 / 2 / 3 / 4": " / ".join(str(held[f"strength_{s}"]) for s in STRENGTHS),
            "none": f"{held['strength_none']:,}",
            "median words, prompt / response": (
                f"{held['prompt_words']:g} / {held['response_words']:g}"
            ),
            "dropped": f"{sum(record.data.get('dropped', {}).values()):,}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def length_table(records: Sequence[Record]) -> pd.DataFrame:
    """Length bias of each data set in percent, from this study's records."""
    rows = {}
    for record in records:
        by_strength = record.tables["length"].set_index("strength")
        edited = record.tables["summary"]["edited_longer"].astype(float).item()
        everything = by_strength.loc["all"] * 100
        rows[record.source] = {
            "chosen longer (%)": f"{everything['estimate']:.1f}",
            "95 % interval": f"{everything['low']:.1f}–{everything['high']:.1f}",
            **{
                f"at {strength}": f"{by_strength['estimate'][strength] * 100:.1f}"
                if strength in by_strength.index
                else "–"
                for strength in STRATA[1:]
            },
            "edited longer (%)": "–" if np.isnan(edited) else f"{edited * 100:.1f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def example_table(group: SimulatedGroup) -> pd.DataFrame:
    """One simulated group, best response first, with the gold rewards that no annotator sees."""
    ranked = group.ranked
    rows = [("prompt", turn.content, "", "") for turn in ranked.prompt]
    for name, response in zip(RESPONSES[-len(group.responses) :], group.responses, strict=True):
        # Adding zero turns the −0.0 of a flawless response into 0.0.
        helpfulness, safety = response.gold("helpfulness") + 0.0, response.gold("safety") + 0.0
        rows.append((name, response.text, f"{helpfulness:.1f}", f"{safety:.1f}"))
    strength = f"{ranked.strength} ({STRENGTHS[ranked.strength]})" if ranked.strength else "none"
    rows.append(("strength", strength, "", ""))
    columns = ["", "text", "gold helpfulness", "gold safety"]
    return pd.DataFrame(rows, columns=columns).set_index("")


def task_table(seed: int) -> pd.DataFrame:
    """One prompt and its flawless answer for each kind of task; unsafe requests stand apart."""
    rng = random.Random(seed)
    examples: dict[str, dict[str, str]] = {}
    # Far more draws than it takes to see every kind; the first of each is kept.
    for _ in range(500):
        task = draw_task(rng, multi_turn=0.0)
        examples.setdefault(
            f"{task.kind}, unsafe" if task.unsafe else task.kind,
            {"prompt": task.prompt[-1].content, "flawless answer": Response(task, ()).text},
        )
    return pd.DataFrame.from_dict(examples, orient="index").sort_index()


def cost_table() -> pd.DataFrame:
    """What each defect costs, in units of gold reward."""
    return pd.DataFrame({"helpfulness": HELPFULNESS_COST, "safety": SAFETY_COST})


def strength_table() -> pd.DataFrame:
    """The interval of the perceived difference that each strength stands for."""
    edges = ["0", *map(str, STRENGTH_THRESHOLDS), "∞"]
    return pd.DataFrame(
        {"strength": list(STRENGTHS.values()), "from": edges[:-1], "below": edges[1:]},
        index=list(STRENGTHS),
    )


def judgements(groups: Sequence[SimulatedGroup]) -> pd.DataFrame:
    r"""Simulated frequencies of judgements beside their probabilities, by size of the difference.

    Returns:
        One row for each bin of \|Δ\| that has pairs and each ``judgement``: ``better one
        preferred`` or ``strength 1`` to ``strength 4``. Columns ``gap`` (mean \|Δ\|), ``pairs``,
        ``share`` with its 95 % Wilson interval ``low`` to ``high``, and ``probability``, the mean
        of the formula over the same pairs. Pairs with Δ = 0 have no better response and count for
        strengths only.
    """
    # Costs are decimal fractions, whose floating-point sums must not fall off an edge.
    difference = np.round([group.difference for group in groups], 6)
    gap = np.abs(difference)
    strength = np.array([group.ranked.strength for group in groups])
    by_strength = strength_probabilities(gap) + strength_probabilities(-gap)
    place = np.searchsorted(GAP_EDGES, gap, side="right")
    rows = []
    for bin_ in np.unique(place):
        inside = place == bin_
        unequal = inside & (gap > 0)
        rows.append((BETTER_PREFERRED, gap, unequal, difference > 0, expit(gap)))
        rows += [
            (f"strength {s}", gap, inside, strength == s, by_strength[:, s - 1]) for s in STRENGTHS
        ]
    return pd.DataFrame([_frequency(*row) for row in rows if row[2].any()])


def _frequency(
    judgement: str, gap: np.ndarray, inside: np.ndarray, happened: np.ndarray, chance: np.ndarray
) -> dict[str, Any]:
    count, pairs = int(happened[inside].sum()), int(inside.sum())
    bounds = binomtest(count, pairs).proportion_ci(method="wilson")
    return {
        "judgement": judgement,
        "gap": gap[inside].mean(),
        "pairs": pairs,
        "share": count / pairs,
        "low": bounds.low,
        "high": bounds.high,
        "probability": chance[inside].mean(),
    }


def reachable_table(groups: Sequence[SimulatedGroup]) -> pd.DataFrame:
    """Reachable accuracy (%) by strength, beside what the gold reward reaches on these pairs."""
    difference = np.array([group.difference for group in groups])
    reachable = reachable_accuracy(difference.tolist())
    agrees = (difference > 0) + (difference == 0) / 2
    strength = np.array([group.ranked.strength for group in groups])
    rows = {}
    for stratum in STRATA:
        inside = np.full(len(groups), True) if stratum == "all" else strength == int(stratum)
        name = stratum if stratum == "all" else f"{stratum} {STRENGTHS[int(stratum)]}"
        rows[name] = {
            "pairs": f"{inside.sum():,}",
            "reachable accuracy (%)": f"{reachable[stratum] * 100:.1f}",
            "gold reward on these pairs (%)": f"{agrees[inside].mean() * 100:.1f}"
            if inside.any()
            else "–",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def check_report(
    entries: Sequence[Mapping[str, Any]], name: str = "mine.jsonl", width: int = 68
) -> tuple[str, pd.DataFrame]:
    """What ``posttrain data check`` finds in a file with these records, good or bad.

    The messages of refused records, wrapped so that a page need not scroll, and the summary of the
    file, one line per entry.
    """
    # From inside the folder, so that the messages carry the file's name and not the folder's.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        lines = "".join(json.dumps(entry) + "\n" for entry in entries)
        Path(name).write_text(lines, encoding="utf-8")
        summary = check.summarise_file(name)
    messages = (textwrap.fill(str(error), width) for error in summary.refused)
    return "\n".join(messages), summary.table.T.rename_axis(columns=None)
