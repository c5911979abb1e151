"""What sources of comparisons are like: whose labels, contradictions among them, and length."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from posttrain.data.preferences import Message, RankedGroup
from posttrain.evaluation.length import length_accuracy


def overview(
    ranked: Sequence[RankedGroup], sources: np.ndarray, labels: Mapping[str, str]
) -> pd.DataFrame:
    """What sources are like: one row each.

    ``labels`` (whose), counts, ``contradicting`` (share of prompts whose comparisons go in a
    circle, so that no score can agree with all), and how often the longer response is the chosen
    one.
    """
    rows = []
    for name, who in labels.items():
        groups = [ranked[k] for k in np.flatnonzero(sources == name).tolist()]
        by_prompt: dict[tuple[Message, ...], list[RankedGroup]] = {}
        for group in groups:
            by_prompt.setdefault(group.prompt, []).append(group)
        circular = sum(map(is_circular, by_prompt.values()))
        longer = length_accuracy(groups, 1000).set_index("strength").loc["all"]
        rows.append(
            {
                "source": name,
                "domain": ", ".join(sorted({str(group.domain) for group in groups})),
                "labels": who,
                "pairs": len(groups),
                "groups": len({group.cluster_id for group in groups}),
                "contradicting": circular / len(by_prompt),
            }
            | longer.to_dict()
        )
    return pd.DataFrame(rows)


def is_circular(groups: Sequence[RankedGroup]) -> bool:
    """Whether comparisons of responses to one prompt go in a circle."""
    texts: dict[str, int] = {}
    edges = [
        (texts.setdefault(group.chosen, len(texts)), texts.setdefault(group.rejected, len(texts)))
        for group in groups
    ]
    places = tuple(np.array(edges).T)
    graph = csr_array((np.ones(len(edges)), places), shape=(len(texts), len(texts)))
    return bool(connected_components(graph, connection="strong")[0] < len(texts))
