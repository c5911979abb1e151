"""Throughput and the closed form for readers: a sentence, and tables of formatted numbers."""

import pandas as pd

from posttrain.evidence.claims import estimate
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import PERCENT
from posttrain.studies.common.llama3 import RATIO
from posttrain.studies.throughput.keys import Speed

#: The method that readers are to use, as the throughput study names it, and all like it.
EXACT = "exact row"


def in_words(record: Record) -> str:
    """What an exact row saves at Llama 3's length ratio, in a few sentences.

    Args:
        record: A record of the throughput study.
    """
    table = record.tables["speed"]

    def factor(responses: int, metric: str) -> str:
        found = estimate(table, ratio=RATIO, responses=responses, method=EXACT, metric=metric)
        return f"{found[0]:.2f}"

    over_separate, over_pairs = Speed.OVER_SEPARATE, Speed.OVER_TRL
    return (
        f"At Llama 3's ratio of prompt to response length ({RATIO}), but with responses of "
        f"{record.settings['response_tokens']} tokens, on a {record.environment['device']} with "
        f"`{record.settings['checkpoint']}`, an exact row "
        f"trains pairs {factor(2, over_separate)} times and triples {factor(3, over_separate)} "
        f"times as fast as separate rows, and {factor(2, over_pairs)} and {factor(3, over_pairs)} "
        "times as fast as TRL's RewardTrainer, which computes two full rows for each pair "
        f"(medians of {record.settings['rounds']} rounds). It needs an attention implementation "
        "that takes a mask; with a dense one, long rows save less."
    )


def again_in_words(record: Record) -> str:
    """What another measurement of triples gave, in a sentence.

    Args:
        record: A record of the throughput study.
    """
    found = (
        estimate(record.tables["speed"], ratio=RATIO, responses=3, method=EXACT, metric=metric)
        for metric in (Speed.OVER_SEPARATE, Speed.OVER_TRL)
    )
    separate, pairs = (f"{middle:.2f} ({low:.2f}–{high:.2f})" for middle, low, high in found)
    rounds, steps = record.settings["rounds"], record.settings["steps"]
    return (
        f"Measured again by themselves, in {rounds} rounds of {steps} steps, triples train "
        f"{separate} times as fast as separate rows and {pairs} times as fast as TRL's "
        "RewardTrainer."
    )


def conditions(record: Record) -> str:
    """Under what conditions speeds were measured, in two or three sentences.

    Args:
        record: A record of the throughput study.
    """
    given = record.settings
    parts = given.get("max_tokens_per_device")
    return (
        f"`{given['checkpoint']}` on a {record.environment['device']} in {given['dtype']}, "
        f"responses of {given['response_tokens']} random tokens each, "
        f"{given['groups_per_step']} groups a step, {given['rounds']} rounds of {given['steps']} "
        f"timed step{'s' if given['steps'] > 1 else ''} after {given['warmup_steps']} untimed. "
        "TRL's RewardTrainer computes in the same precision, cuts no pair and recomputes no "
        "activations, contrary to its defaults."
    ) + (
        f" No more than {parts} tokens are computed at once, with TRL's by gradient accumulation."
        if parts
        else ""
    )


def speed_table(record: Record, ratio: float = RATIO) -> pd.DataFrame:
    """Speed of every method at one length ratio: medians, with the range over rounds for ratios.

    Args:
        record: A record of the throughput study.
        ratio: Length of a prompt in responses.
    """
    table = record.tables["speed"]
    rows = []
    for (responses, method), part in table[table["ratio"] == ratio].groupby(
        ["responses", "method"], sort=False
    ):
        found = part.set_index("metric")
        value = found["estimate"]
        row = {
            "responses": responses,
            "method": method,
            "pairs/s": f"{value['pairs per second']:.2f}",
            "tokens/s": f"{value['tokens per second']:.0f}",
            "times TRL": _range(found.loc[Speed.OVER_TRL]),
            "times separate": _range(found.loc[Speed.OVER_SEPARATE]),
            "tokens/s, separate = 1": f"{value[Speed.TOKENS]:.2f}",
            "padding": f"{value['padding'] * PERCENT:.1f} %",
            "of matmul peak": f"{value['share of matmul peak'] * PERCENT:.0f} %",
        }
        # Earlier records do not have it.
        if "loss difference from TRL" in value:
            row["loss off TRL's"] = f"{value['loss difference from TRL']:.1g}"
        if "memory" in record.tables:
            row["peak memory"] = _gigabytes(record.tables["memory"], ratio, responses, method)
        rows.append(row)
    return pd.DataFrame(rows).set_index(["responses", "method"])


def _range(row: pd.Series) -> str:
    """Median and range over rounds, without a place to break the line."""
    if row["low"] == row["high"]:
        return f"{row['estimate']:.2f}"
    return f"{row['estimate']:.2f}\u00a0({row['low']:.2f}–{row['high']:.2f})"


def _gigabytes(memory: pd.DataFrame, ratio: float, responses: object, method: object) -> str:
    here = memory[
        (memory["ratio"] == ratio)
        & (memory["responses"] == responses)
        & (memory["method"] == method)
    ]
    return f"{here['gigabytes'].item():.2f} GB" if len(here) else "–"
