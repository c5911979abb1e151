"""Figures of the best-of-n study."""

from typing import Any

from matplotlib.figure import Figure

from posttrain.evidence.records import Record
from posttrain.evidence.style import interval_line, panels
from posttrain.studies.best_of_n.keys import FEW, MANY, Proxy, Value, World

#: Colour and marker of each number of pairs, the fewest first.
SIZES = (("#cc79a7", "v"), ("#e69f00", "^"), ("#0072b2", "s"), ("#000000", "o"))
#: Colour and marker of each proxy.
PROXIES = {
    Proxy.SINGLE: ("#000000", "o"),
    Proxy.MEAN: ("#0072b2", "s"),
    Proxy.MINIMUM: ("#56b4e9", "v"),
    Proxy.VARIANCE: ("#009e73", "^"),
    Proxy.AVERAGE: ("#d55e00", "D"),
}


def gold_and_proxy(record: Record) -> Figure:
    """Gold and the proxy's own score against the divergence from the policy, by number of pairs.

    Single reward models, labels as annotated, where praise goes with quality. The shaded band is
    Llama 3's 10 to 30 samples.
    """
    curves = record.tables["curves"]
    curves = curves[
        (curves["world"] == World.PRAISE)
        & (curves["noise"] == 0)
        & (curves["proxy"] == Proxy.SINGLE)
    ]
    figure, axes = panels(["what the reward model says", "what it is worth (gold)"])
    for axis, value in zip(axes, (Value.SCORE, Value.GOLD), strict=True):
        for (size, part), (colour, marker) in zip(
            curves[curves["value"] == value].groupby("size"), SIZES, strict=False
        ):
            style: dict[str, Any] = {"colour": colour, "marker": marker, "ms": 4}
            interval_line(axis, part["divergence"], part, scale=1, label=f"{size:,} pairs", **style)
        _band(axis, curves)
        axis.set_xlabel("KL from the policy (nats)")
    best = record.tables["curves"]
    best = best[(best["proxy"] == Proxy.GOLD) & (best["value"] == Value.GOLD)]
    best = best.drop_duplicates("n")
    axes[1].plot(best["divergence"], best["estimate"], color="#999999", ls="--", label="the truth")
    axes[1].legend(loc="lower left")
    return figure


def ensembles(record: Record) -> Figure:
    """Gold of the best of n by single reward models and by what is made of several, by noise."""
    curves = record.tables["curves"]
    largest = curves["size"].max()
    curves = curves[
        (curves["world"] == World.PRAISE)
        & (curves["size"] == largest)
        & (curves["value"] == Value.GOLD)
    ]
    noises = sorted(set(curves["noise"]))
    figure, axes = panels(
        [f"{noise:.0%} of pairs turned round" if noise else "as annotated" for noise in noises],
        sharey=True,
    )
    for axis, noise in zip(axes, noises, strict=True):
        here = curves[curves["noise"] == noise]
        for proxy, (colour, marker) in PROXIES.items():
            part = here[here["proxy"] == proxy]
            interval_line(
                axis, part["divergence"], part, scale=1, colour=colour, marker=marker, ms=4,
                label=str(proxy),
            )  # fmt: skip
        _band(axis, curves)
        axis.set_xlabel("KL from the policy (nats)")
    axes[0].set_ylabel("gold")
    axes[-1].legend(loc="best")
    return figure


def _band(axis: Any, curves: Any) -> None:
    """Shade what Llama 3's numbers of samples span."""
    at = curves.drop_duplicates("n").set_index("n")["divergence"]
    if FEW in at.index and MANY in at.index:
        axis.axvspan(at[FEW], at[MANY], color="#dddddd", zorder=0)
