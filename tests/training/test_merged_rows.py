"""Merged groups from files: those of a training set made by hand, kept, counted and trained on."""

import json
from dataclasses import replace

import datasets
import pytest

from posttrain.data.preferences import Message, RankedGroup
from posttrain.data.reading import write_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.data.store import stored
from posttrain.models import reward_model
from posttrain.rows.layout import LAYOUTS
from posttrain.rows.tokenization import Limits, tokenize_group
from posttrain.training import dataset
from posttrain.training.collator import training_set
from posttrain.training.dataset import tokenized
from posttrain.training.merging import Merging
from posttrain.training.pairing import Pairing

datasets.disable_progress_bars()


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint):
    return reward_model.load(tiny_checkpoint)[1]


@pytest.fixture
def repeated(tmp_path):
    """Pairs and triples, each prompt twice more: with a contradiction, and with other responses."""
    groups = [group.ranked for group in simulate(12, seed=5, edited_share=0.5)]
    others = [group.ranked for group in simulate(24, seed=6, edited_share=0.5)][12:]
    copies = [
        replace(group, id=f"{group.id}, turned", responses=group.responses[::-1], strength=1)
        for group in groups
    ]
    more = [
        replace(group, id=f"{group.id}, more", responses=other.responses)
        for group, other in zip(groups, others, strict=True)
    ]
    # Not those of a prompt one after another.
    groups = [*groups, *copies[::-1], *more]
    write_groups(tmp_path / "repeated.jsonl", groups)
    return groups, str(tmp_path / "repeated.jsonl")


@pytest.mark.parametrize("batch", [1, 5, 1000])
@pytest.mark.parametrize("limits", [(None, None), (40, 4)])
def test_merged_rows_are_those_of_a_training_set(repeated, tokenizer, monkeypatch, limits, batch):
    groups, path = repeated
    monkeypatch.setattr(dataset, "ROWS_PER_BATCH", batch)
    pairs, merging = Pairing(margins="small"), Merging(LAYOUTS["exact"], *limits)
    made = [pairs.apply(group, tokenize_group(tokenizer, group)) for group in groups]
    expected = list(training_set(made, merging))
    found = tokenized(stored([path]), tokenizer, pairs, Limits()).merged(merging)
    assert list(found.rows) == expected
    assert (found.counts["groups"], found.counts["groups after merging"]) == (36, 12)
    assert found.counts["pairs"] == sum(len(group.pairs) for group in made)
    assert found.counts["tokens"] == sum(row["total"] for row in expected)
    alone = sum(group.tokens.total for group in made)
    assert found.counts["tokens without merging"] == alone
    whole = sum(row["total"] for row in training_set(made, Merging()))
    again = found.counts.get("tokens computed again in other parts of a group", 0)
    assert again == found.counts["tokens"] - whole
    assert (again > 0) == (limits != (None, None))
    assert whole < alone


def test_they_are_made_once(repeated, tokenizer, monkeypatch):
    _, path = repeated
    first = tokenized(stored([path]), tokenizer, Pairing(), Limits()).merged(Merging())

    def refuse(*_):
        raise AssertionError("merged again")

    monkeypatch.setattr(dataset, "_alike", refuse)
    again = tokenized(stored([path]), tokenizer, Pairing(), Limits()).merged(Merging())
    assert list(again.rows) == list(first.rows)
    assert again.counts == first.counts
    with pytest.raises(AssertionError, match="merged again"):
        tokenized(stored([path]), tokenizer, Pairing(), Limits()).merged(Merging(max_pairs=2))


def test_prompts_that_differ_stay_as_they_are(tmp_path, tokenizer):
    groups = [group.ranked for group in simulate(9, seed=1)]
    distinct = list({group.prompt: group for group in groups}.values())
    write_groups(tmp_path / "distinct.jsonl", distinct)
    path = [str(tmp_path / "distinct.jsonl")]
    merged = tokenized(stored(path), tokenizer, Pairing(), Limits()).merged(Merging(max_tokens=3))
    assert list(merged.rows) == list(tokenized(stored(path), tokenizer, Pairing(), Limits()).rows)


def test_prompts_that_limits_cut_otherwise_stay_apart_and_are_counted(tmp_path, tokenizer):
    words = " ".join(group.ranked.chosen for group in simulate(9, seed=1)).split()
    one, two, three, *many = sorted(set(words))[:12]
    prompt = (Message("user", " ".join(words[:20])),)
    short = [
        RankedGroup("a", prompt, (one, two)),
        RankedGroup("b", prompt, (three, one)),
        RankedGroup("c", prompt, (one, " ".join(many))),
    ]
    write_groups(tmp_path / "cut.jsonl", short)
    made = [tokenize_group(tokenizer, group) for group in short]
    limit = made[0].longest
    assert limit < made[2].longest
    cut = [tokenize_group(tokenizer, group, Limits(max_tokens=limit)) for group in short]
    assert [group.trimmed > 0 for group in cut] == [False, False, True]
    found = tokenized(
        stored([str(tmp_path / "cut.jsonl")]),
        tokenizer,
        Pairing(),
        Limits(max_tokens=limit),
    ).merged(Merging())
    rows = list(found.rows)
    assert [tuple(row["prompt"]) for row in rows] == [cut[0].prompt, cut[2].prompt]
    assert [row["pair_count"] for row in rows] == [2, 1]
    reason = "pairs kept apart, as their prompt is cut elsewhere"
    assert found.counts[reason] == 1
    assert found.counts["trimmed prompts"] == 1
    whole = tokenized(stored([str(tmp_path / "cut.jsonl")]), tokenizer, Pairing(), Limits()).merged(
        Merging()
    )
    assert reason not in whole.counts
    assert json.dumps(whole.counts)
