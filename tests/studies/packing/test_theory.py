"""Closed forms of what a single row saves: against the paper's lengths, and against real rows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModelForSequenceClassification, LlamaConfig

from posttrain.rows.attention import dense_mask
from posttrain.rows.layout import LAYOUTS, Layout, lay_out
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.studies.common.cost import (
    ARRANGEMENTS,
    GroupLengths,
    dense_pairs,
    forward_flops,
    linear_parameters,
    row_lengths,
    tokens,
    visible_pairs,
)
from posttrain.studies.packing.theory import arrangement_table

#: Grouped-query attention, and heads that do not add up to the hidden size.
CONFIG = LlamaConfig(
    vocab_size=10,
    hidden_size=12,
    intermediate_size=20,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=6,
    num_labels=1,
)

#: Rows that carry their structure, so that the mask can be counted. A causal row does where
#: positions restart, and separate rows do where several share one.
STRUCTURED = {
    "separate rows": LAYOUTS["separate"],
    "exact row": LAYOUTS["exact"],
    "causal row": Layout("single", "causal", "restarting"),
}

LENGTHS = st.integers(1, 9)
GROUPS = st.lists(
    st.builds(GroupLengths, LENGTHS, st.lists(LENGTHS, min_size=2, max_size=4).map(tuple)),
    min_size=1,
    max_size=4,
)


def tokenized(group):
    return TokenizedGroup((1,) * group.prompt, tuple((2,) * size for size in group.responses))


@given(groups=GROUPS, spare=st.integers(0, 30))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("arrangement", STRUCTURED)
def test_counts_are_those_of_the_rows_and_masks_that_models_get(arrangement, groups, spare):
    largest = max(sum(row_lengths(group, "exact row")) for group in groups)
    batch = lay_out(
        [tokenized(group) for group in groups],
        STRUCTURED[arrangement],
        pad_token_id=0,
        pack_length=largest + spare,
    )
    assert (batch.input_ids != 0).sum() == sum(tokens(group, arrangement) for group in groups)
    if batch.document_id is None:
        # No two documents came to share a row, and each is a plain causal sequence.
        sizes = (batch.input_ids != 0).sum(dim=1)
        found = (sizes * (sizes + 1) // 2).sum()
    else:
        of_padding = (batch.document_id < 0)[:, None, :, None]
        found = (dense_mask(batch) & ~of_padding).sum()
    assert found == sum(visible_pairs(group, arrangement) for group in groups)


@given(group=GROUPS.map(lambda groups: groups[0]))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("arrangement", ["separate rows", "exact row", "causal row"])
def test_row_lengths_are_those_of_the_layout_presets(arrangement, group):
    preset = {"separate rows": "separate", "exact row": "exact", "causal row": "causal"}
    batch = lay_out([tokenized(group)], LAYOUTS[preset[arrangement]], pad_token_id=0)
    assert (batch.input_ids != 0).sum(dim=1).tolist() == row_lengths(group, arrangement)


@given(prompt=st.floats(0.5, 1e4), response=st.floats(0.5, 1e4), count=st.integers(2, 8))
def test_equal_responses_give_the_textbook_formulas(prompt, response, count):
    group, row = GroupLengths.equal(prompt, response, count), prompt + response
    single = prompt + count * response
    expected = {
        "pair rows": (count * (count - 1) * row, count * (count - 1) * row * (row + 1) / 2),
        "separate rows": (count * row, count * row * (row + 1) / 2),
        "exact row": (
            single,
            prompt * (prompt + 1) / 2 + count * (response * prompt + response * (response + 1) / 2),
        ),
        "causal row": (single, single * (single + 1) / 2),
    }
    found = {name: (tokens(group, name), visible_pairs(group, name)) for name in ARRANGEMENTS}
    for name in ARRANGEMENTS:
        assert found[name] == pytest.approx(expected[name])
    fewer = found["separate rows"][1] - found["exact row"][1]
    # Relative to the minuend, because the difference of two large numbers loses digits.
    assert fewer == pytest.approx(
        (count - 1) * prompt * (prompt + 1) / 2, abs=1e-9 * found["separate rows"][1]
    )
    assert dense_pairs(group, "causal row") == dense_pairs(group, "exact row")
    assert dense_pairs(group, "exact row") == pytest.approx(single**2)
    assert dense_pairs(group, "separate rows") == pytest.approx(count * row**2)


def test_an_unknown_arrangement_is_refused():
    with pytest.raises(ValueError, match="'packed'; known: pair rows, separate rows"):
        tokens(GroupLengths.equal(1, 1, 2), "packed")


def test_linear_parameters_are_those_of_the_stock_model():
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(CONFIG)
    linear = [module for module in model.model.modules() if isinstance(module, nn.Linear)]
    assert linear_parameters(CONFIG) == sum(module.weight.numel() for module in linear)


def test_flops_are_two_a_weight_and_token_and_four_a_channel_and_pair():
    expected = 2 * linear_parameters(CONFIG) * 7 + 2 * 4 * (4 * 6) * 28
    assert forward_flops(CONFIG, 7, 28) == expected


def test_the_table_of_arrangements_compares_with_the_exact_row():
    table = arrangement_table(CONFIG, prompt=4, response=2, responses=[3])
    assert table["arrangement"].tolist() == list(ARRANGEMENTS)
    assert table["tokens"].tolist() == [36, 18, 10, 10]
    assert table["visible pairs"].tolist() == [126, 63, 43, 55]
    assert table["dense pairs"].tolist() == [216, 108, 100, 100]
    np.testing.assert_allclose(table["tokens, relative"], [3.6, 1.8, 1, 1])
    exact = forward_flops(CONFIG, 10, 43)
    assert table["forward FLOPs"].tolist()[2] == exact
    assert table["FLOPs, relative"].tolist()[0] == forward_flops(CONFIG, 36, 126) / exact


def test_by_default_the_table_is_at_llama_3s_lengths():
    table = arrangement_table(CONFIG).set_index(["K", "arrangement"])
    assert len(table) == 8
    assert table.loc[(3, "exact row"), "tokens"] == pytest.approx(757.6 + 3 * 284)
    assert table.loc[(3, "pair rows"), "tokens, relative"] == pytest.approx(3.88, abs=0.005)
