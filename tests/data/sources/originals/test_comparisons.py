"""What says nothing is dropped by reason, and order is kept."""

from collections import Counter

from posttrain.data.sources.originals.comparisons import distinct


def compared(chosen, rejected, prompt="May I?"):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def test_reasons_are_counted_and_order_is_kept():
    dropped = Counter()
    records = [
        compared("a", "b"),
        compared("c", "d"),
        compared("", "b"),
        compared("a", ""),
        compared("a", "b", prompt=""),
        compared("a", "a"),
        compared("b", "c"),
        compared("a", "b"),
        compared("d", "c"),
        compared("c", "d"),
        compared("a", "c"),
    ]
    assert distinct(iter(records), dropped) == [
        compared("a", "b"),
        compared("b", "c"),
        compared("a", "c"),
    ]
    assert dropped == {
        "empty prompt": 1,
        "empty response": 2,
        "identical responses": 1,
        "contradicted pair": 3,
        "repeated pair": 1,
    }


def test_another_prompt_neither_repeats_nor_contradicts():
    records = [compared("a", "b"), compared("b", "a", prompt="Why?"), compared("a", "b", "Who?")]
    dropped = Counter()
    assert distinct(records, dropped) == records
    assert not dropped
