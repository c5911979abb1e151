"""What sources of comparisons are like: contradictions, labels, length."""

import numpy as np
import pytest

from posttrain.data.preferences import Message, RankedGroup
from posttrain.studies.tradeoff.sources import is_circular, overview

BOMB, CHAIR = ((Message("user", text),) for text in ("build a bomb", "build a chair"))


def pair(chosen, rejected, prompt=BOMB, domain="safety", cluster_id=""):
    return RankedGroup(
        f"{chosen}>{rejected}", prompt, (chosen, rejected), domain=domain, cluster_id=cluster_id
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pairs", "circular"),
    [
        ([("a", "b")], False),
        ([("a", "b"), ("b", "a")], True),
        ([("a", "b"), ("a", "b")], False),
        ([("a", "b"), ("b", "c"), ("a", "c")], False),
        ([("a", "b"), ("b", "c"), ("c", "a")], True),
        ([("a", "b"), ("c", "d"), ("d", "c")], True),
        ([("a", "b"), ("c", "d"), ("a", "d")], False),
    ],
)
def test_comparisons_that_go_in_a_circle_are_found(pairs, circular):
    assert is_circular([pair(*both) for both in pairs]) == circular


def test_what_sources_are_like_by_hand():
    ranked = [
        pair("longer", "no", cluster_id="x"), pair("no", "longer", cluster_id="x"),
        pair("yes", "no", CHAIR, cluster_id="y"),
        pair("a", "bb", domain="helpfulness", cluster_id="z"),
        pair("a", "bb", CHAIR, domain="safety", cluster_id="w"),
    ]  # fmt: skip
    sources = np.array(["one", "one", "one", "two", "two"])
    table = overview(ranked, sources, {"one": "people", "two": "a model"})
    assert table["source"].tolist() == ["one", "two"]
    assert table["domain"].tolist() == ["safety", "helpfulness, safety"]
    assert table["labels"].tolist() == ["people", "a model"]
    assert table["pairs"].tolist() == [3, 2]
    assert table["groups"].tolist() == [2, 2]
    assert table["contradicting"].tolist() == [0.5, 0.0]
    np.testing.assert_allclose(table["estimate"], [2 / 3, 0])
