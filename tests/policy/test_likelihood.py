"""Log-probabilities of responses: word by word by hand, and whatever the batches are."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.data.sources.simulator.annotators import simulate
from posttrain.models.float64 import compute_in_double
from posttrain.policy.likelihood import response_log_probabilities

GROUPS = [group.ranked for group in simulate(9, seed=2, multi_turn=0.5)]
PROMPTS = [group.prompt for group in GROUPS]
RESPONSES = [group.chosen for group in GROUPS]


@pytest.fixture(scope="module")
def policy(tiny_checkpoint):
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype="auto").eval()
    return model, AutoTokenizer.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="module")
def in_double(tiny_checkpoint):
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype="auto").eval()
    return compute_in_double(model)


def by_hand(model, tokenizer, prompt, response):
    """The sum over the words of a response and its end, each computed from what precedes it."""
    text = "".join(f"<|{turn.role}|> {turn.content} <|end|> " for turn in prompt)
    ids = tokenizer(text + "<|assistant|>")["input_ids"]
    total = 0.0
    for token in tokenizer(response + " <|end|>")["input_ids"]:
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1].numpy()
        total += logits[token] - logits.max() - math.log(np.exp(logits - logits.max()).sum())
        ids.append(token)
    return total


def test_a_response_has_the_probability_of_its_words_and_its_end(policy, in_double):
    found = response_log_probabilities(*policy, PROMPTS, RESPONSES)
    expected = [
        by_hand(in_double, policy[1], prompt, response)
        for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [1, 4])
def test_batches_change_nothing(policy, size):
    together = response_log_probabilities(*policy, PROMPTS, RESPONSES)
    parted = response_log_probabilities(*policy, PROMPTS, RESPONSES, batch_size=size)
    np.testing.assert_allclose(parted, together, rtol=0, atol=1e-10)


def test_probabilities_of_all_single_words_are_that_of_an_answer_of_one_word(policy, in_double):
    tokenizer = policy[1]
    words = [word for word in tokenizer.get_vocab() if not word.startswith("<|")]
    found = response_log_probabilities(*policy, PROMPTS[:1] * len(words), words)
    ids = tokenizer.apply_chat_template(
        [{"role": turn.role, "content": turn.content} for turn in PROMPTS[0]],
        add_generation_prompt=True,
        return_dict=False,
    )
    numbers = torch.tensor(tokenizer.convert_tokens_to_ids(words))
    rows = torch.cat([torch.tensor([ids]).expand(len(words), -1), numbers[:, None]], dim=1)
    with torch.no_grad():
        logs = in_double(rows).logits.log_softmax(-1)
    first = logs[torch.arange(len(words)), -2, numbers]
    end = logs[:, -1, tokenizer.eos_token_id]
    np.testing.assert_allclose(found, (first + end).numpy(), rtol=0, atol=1e-10)
    assert np.exp(found).sum() < 1


def test_each_response_needs_a_prompt(policy):
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        response_log_probabilities(*policy, PROMPTS, RESPONSES[:1])


def test_nothing_has_no_probabilities(policy):
    assert response_log_probabilities(*policy, [], []).shape == (0,)


def test_other_precisions_are_close(tiny_checkpoint, policy):
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    found = response_log_probabilities(model, policy[1], PROMPTS, RESPONSES)
    exact = response_log_probabilities(*policy, PROMPTS, RESPONSES)
    assert 0 < np.abs(found - exact).max() < 1e-3
