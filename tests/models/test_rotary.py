"""Rotary frequencies that depend on the longest row of a batch change no score beside it."""

import logging

import pytest
import torch
from small_llama import SMALL
from transformers import LlamaConfig, LlamaForSequenceClassification, Phi3Config
from transformers import Phi3ForSequenceClassification as Phi3

from posttrain.models.reward_model import forward_scores, score
from posttrain.models.rotary import rope_boundary, within_boundary
from posttrain.rows.layout import LAYOUTS, Layout, lay_out
from posttrain.rows.tokenization import Limits, TokenizedGroup
from posttrain.training.collator import TrainingGroup, training_set
from posttrain.training.step_batches import check_lengths

SEPARATE, EXACT = LAYOUTS["separate"], LAYOUTS["exact"]
RUNNING = Layout("single", "causal", "running")
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 8,
    "long_factor": [4.0] * 8, "original_max_position_embeddings": 12,
}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}

#: Responses of which the first ends at the boundary, and others beyond it.
BOTH_SIDES = TokenizedGroup((1, 2, 3, 4), ((5,) * 8, (6,) * 9, (7, 8), (9,) * 30))
SHORT = TokenizedGroup((1, 2, 3), ((4, 5), (6, 7, 8)))


@pytest.fixture
def model():
    config = Phi3Config(
        **SMALL, max_position_embeddings=48, original_max_position_embeddings=12,
        rope_parameters=LONGROPE,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Phi3(config).eval()


@torch.no_grad()
def alone(model, groups):
    rows = [group.prompt + response for group in groups for response in group.responses]
    return torch.tensor([model(input_ids=torch.tensor([row])).logits.item() for row in rows])


@pytest.mark.parametrize("pack_length", [None, 60])
@pytest.mark.parametrize("layout", [SEPARATE, EXACT])
@pytest.mark.parametrize("batch_tokens", [1, 10_000])
def test_a_score_alone_is_its_score_beside_a_long_row(model, layout, pack_length, batch_tokens):
    groups = [BOTH_SIDES, SHORT, BOTH_SIDES]
    found = score(
        model, groups, pad_token_id=0, layout=layout, pack_length=pack_length,
        batch_tokens=batch_tokens,
    )  # fmt: skip
    torch.testing.assert_close(found, alone(model, groups), rtol=0, atol=1e-5)


def test_without_parting_them_short_rows_would_be_scored_otherwise(model):
    with torch.no_grad():
        mixed = forward_scores(model, lay_out([BOTH_SIDES, SHORT], SEPARATE, pad_token_id=0))
    off = (mixed - alone(model, [BOTH_SIDES, SHORT])).abs()
    assert off[[0, 2, 4, 5]].min() > 1e-3
    assert off[[1, 3]].max() < 1e-5


def test_running_rows_are_parted_by_their_whole_length(model):
    groups = [SHORT, BOTH_SIDES]
    single = [score(model, [group], pad_token_id=0, layout=RUNNING) for group in groups]
    both = score(model, groups, pad_token_id=0, layout=RUNNING)
    torch.testing.assert_close(both, torch.cat(single), rtol=0, atol=1e-5)


def test_a_row_beyond_the_context_of_dynamic_frequencies_is_refused():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(**SMALL, max_position_embeddings=24, rope_parameters=DYNAMIC)
        model = LlamaForSequenceClassification(config).eval()
    within = TokenizedGroup((1, 2, 3, 4), ((5,) * 20, (6,)))
    expected = alone(model, [within])
    with pytest.raises(ValueError, match=r"34 tokens is beyond .* of 24.*set --max_tokens 24"):
        score(model, [BOTH_SIDES], pad_token_id=0)
    # Within the context, nothing is refused, and no row changes another.
    found = score(model, [within], pad_token_id=0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_long_rows_are_refused_in_training_with_the_remedy(model):
    short, long = (training_set([TrainingGroup.with_all_pairs(g)]) for g in (SHORT, BOTH_SIDES))
    check_lengths(model, short, EXACT)
    with pytest.raises(ValueError, match=r"34 tokens, and beyond 12, .*set --max_tokens 12,"):
        check_lengths(model, long, EXACT)
    fits = TokenizedGroup((1, 2, 3, 4), ((5,) * 8, (6,) * 8))
    exact = training_set([TrainingGroup.with_all_pairs(fits)])
    check_lengths(model, exact, EXACT)
    with pytest.raises(ValueError, match=r"20 tokens, .*--max_tokens 12 and --layout exact"):
        check_lengths(model, exact, RUNNING)


def test_training_cuts_prompts_at_the_boundary_and_says_so(model, caplog):
    limits = Limits(max_tokens=48)
    with caplog.at_level(logging.INFO):
        cut = within_boundary(model.config, limits, EXACT)
    assert (cut.max_tokens, cut.max_row_tokens) == (12, None)
    assert "at most 12 tokens" in caplog.text
    caplog.clear()
    packed = within_boundary(model.config, Limits(max_tokens=48, max_row_tokens=40), EXACT)
    assert (packed.max_tokens, packed.max_row_tokens) == (12, 40)
    running = within_boundary(model.config, Limits(max_tokens=48, max_row_tokens=40), RUNNING)
    assert (running.max_tokens, running.max_row_tokens) == (12, 12)
    assert within_boundary(model.config, Limits(max_tokens=9), EXACT) == Limits(max_tokens=9)
    assert within_boundary(LlamaConfig(), limits, EXACT) is limits


def test_frequencies_of_kinds_of_layers_are_found():
    config = LlamaConfig(**SMALL)
    config.rope_parameters = {
        "full_attention": LONGROPE,
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }
    assert rope_boundary(config) == 12
