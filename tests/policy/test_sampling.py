"""Samples: those that each would be alone, the model's own distribution, and what is refused."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.data.preferences import Message
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.errors import UserError
from posttrain.models.float64 import compute_in_double
from posttrain.policy.likelihood import response_log_probabilities
from posttrain.policy.sampling import SamplingSettings, end_tokens, sample

PROMPTS = [group.ranked.prompt for group in simulate(7, seed=4, multi_turn=0.5)]


@pytest.fixture(scope="module")
def policy(tiny_checkpoint):
    """A language model and its tokenizer; nothing may change them."""
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype="auto").eval()
    return model, AutoTokenizer.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="module")
def in_double(tiny_checkpoint):
    """The same model, which computes in double precision by itself."""
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype="auto").eval()
    return compute_in_double(model)


def prompt_ids(tokenizer, prompt):
    turns = [{"role": turn.role, "content": turn.content} for turn in prompt]
    return tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)


def one_by_one(model, tokenizer, prompts, settings):
    """Each sample alone, every step computed from its first token; ids and log-probability."""
    for number, prompt in enumerate(prompts):
        start = prompt_ids(tokenizer, prompt)
        rng = np.random.default_rng([settings.sampling_seed, number])
        uniforms = rng.random((settings.max_new_tokens, settings.samples))
        drawn = []
        for k in range(settings.samples):
            ids, total = list(start), 0.0
            for step in range(settings.max_new_tokens):
                with torch.no_grad():
                    logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1].numpy()
                logs = logits - logits.max()
                logs = logs - math.log(np.exp(logs).sum())
                if settings.temperature == 0:
                    token = int(logs.argmax())
                else:
                    weights = np.exp(logs / settings.temperature)
                    heights = np.cumsum(weights) / weights.sum()
                    token = int((heights <= uniforms[step, k]).sum())
                ids.append(token)
                total += float(logs[token])
                if token == tokenizer.eos_token_id:
                    break
            drawn.append((ids[len(start) :], total))
        yield drawn


@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.0, 0.0])
def test_samples_are_what_they_would_be_one_by_one(policy, in_double, temperature):
    tokenizer = policy[1]
    settings = SamplingSettings(
        samples=3, temperature=temperature, max_new_tokens=14, sampling_seed=3
    )
    found = list(sample(*policy, PROMPTS[:4], settings))
    expected = list(one_by_one(in_double, tokenizer, PROMPTS[:4], settings))
    lengths = set()
    for ours, alone in zip(found, expected, strict=True):
        for one, (ids, log_probability) in zip(ours, alone, strict=True):
            finished = ids[-1] == tokenizer.eos_token_id
            lengths.add(len(ids))
            assert one.finished == finished
            assert one.text == tokenizer.decode(ids, skip_special_tokens=True).strip()
            assert one.log_probability == pytest.approx(log_probability, abs=1e-9)
    assert len(lengths) > 1 or temperature == 0


def same(one, other):
    """Whether samples are the same up to rounding."""
    for ours, theirs in zip(one, other, strict=True):
        assert [(s.text, s.finished) for s in ours] == [(s.text, s.finished) for s in theirs]
        np.testing.assert_allclose(
            [s.log_probability for s in ours], [s.log_probability for s in theirs], atol=1e-9
        )


@pytest.mark.parametrize("batch", [1, 8, 17])
def test_how_many_are_drawn_at_a_time_changes_nothing(policy, batch):
    settings = {"samples": 8, "max_new_tokens": 20}
    together = list(sample(*policy, PROMPTS, SamplingSettings(**settings)))
    assert len(together) == len(PROMPTS)
    assert {len(samples) for samples in together} == {8}
    parted = sample(*policy, PROMPTS, SamplingSettings(**settings, sampling_batch=batch))
    same(together, list(parted))


def test_samples_of_a_prompt_depend_on_its_place_and_on_no_other_prompt(policy):
    settings = SamplingSettings(samples=5, max_new_tokens=20)
    long, short = max(PROMPTS, key=str), (Message("user", "count : owl"),)
    first = list(sample(*policy, [PROMPTS[0], short, short], settings))
    other = list(sample(*policy, [PROMPTS[0], long, short], settings))
    same([first[0], first[2]], [other[0], other[2]])
    assert [one.text for one in first[1]] != [one.text for one in first[2]]
    same([first[0]], list(sample(*policy, PROMPTS[:1], settings)))


def test_more_samples_and_another_seed_are_other_samples(policy):
    def texts(**settings):
        found = sample(*policy, PROMPTS[:2], SamplingSettings(max_new_tokens=20, **settings))
        return [[one.text for one in samples] for samples in found]

    assert texts(samples=6) == texts(samples=6, sampling_seed=0)
    assert texts(samples=6) != texts(samples=6, sampling_seed=1)


def test_temperature_zero_is_greedy_generation(policy, in_double):
    tokenizer = policy[1]
    settings = SamplingSettings(samples=2, temperature=0, max_new_tokens=30)
    for prompt, found in zip(PROMPTS, sample(*policy, PROMPTS, settings), strict=True):
        ids = torch.tensor([prompt_ids(tokenizer, prompt)])
        out = in_double.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=30
        )
        text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert found[0] == found[1]
        assert found[0].text == text
        assert found[0].finished == (int(out[0, -1]) == tokenizer.eos_token_id)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_first_words_are_as_frequent_as_the_model_says(policy, in_double, temperature):
    tokenizer, count = policy[1], 20_000
    settings = SamplingSettings(
        samples=count, max_new_tokens=1, temperature=temperature, sampling_batch=count
    )
    (found,) = sample(*policy, PROMPTS[:1], settings)
    ids = torch.tensor([prompt_ids(tokenizer, PROMPTS[0])])
    with torch.no_grad():
        logs = in_double(ids).logits[0, -1].log_softmax(-1)
    probabilities = (logs / temperature).softmax(-1).numpy()
    # Each token has a log-probability of its own, special tokens too, which have no text.
    drawn = np.array([one.log_probability for one in found])
    nearest = np.abs(drawn[:, None] - logs.numpy()[None]).argmin(axis=1)
    np.testing.assert_allclose(logs.numpy()[nearest], drawn, atol=1e-9)
    observed = np.bincount(nearest, minlength=len(logs))
    common = probabilities * count >= 5
    expected, counts = probabilities[common] * count, observed[common]
    if not common.all():
        expected = np.append(expected, probabilities[~common].sum() * count)
        counts = np.append(counts, observed[~common].sum())
    assert counts.sum() == count
    statistic = ((counts - expected) ** 2 / expected).sum()
    low, high = chi2.ppf([1e-3, 1 - 1e-3], len(expected) - 1)
    assert common.sum() > 5
    assert low < statistic < high


def test_samples_of_a_prompt_are_independent(policy):
    settings = SamplingSettings(samples=2, max_new_tokens=1)
    prompts = [PROMPTS[0]] * 1500
    pairs = [
        (first.log_probability, second.log_probability)
        for first, second in sample(*policy, prompts, settings)
    ]
    agreeing = np.mean([abs(first - second) < 1e-9 for first, second in pairs])
    (many,) = sample(*policy, prompts[:1], SamplingSettings(samples=4000, max_new_tokens=1))
    by_chance = np.mean(np.exp([one.log_probability for one in many]))
    assert agreeing == pytest.approx(by_chance, abs=4 * math.sqrt(0.25 / 1500))


def test_log_probability_of_a_finished_sample_is_that_of_its_text(tiny_checkpoint):
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype="auto").eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    # Special tokens within a response leave no text, and the text is another sequence then.
    silent = sorted(set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder))
    silent.remove(tokenizer.eos_token_id)

    def without_special(_module, _inputs, logits):
        return logits.index_fill(-1, torch.tensor(silent), -1e4)

    model.lm_head.register_forward_hook(without_special)
    settings = SamplingSettings(samples=8, max_new_tokens=40, temperature=1.3)
    found = list(sample(model, tokenizer, PROMPTS, settings))
    pairs = [(p, one) for p, ones in zip(PROMPTS, found, strict=True) for one in ones]
    values = response_log_probabilities(
        model, tokenizer, [prompt for prompt, _ in pairs], [one.text for _, one in pairs]
    )
    finished = np.array([one.finished for _, one in pairs])
    logs = np.array([one.log_probability for _, one in pairs])
    assert finished.sum() > 30
    np.testing.assert_allclose(values[finished], logs[finished], rtol=0, atol=1e-9)
    # An unfinished sample is counted without an end.
    assert (values[~finished] < logs[~finished]).all()


def test_samples_that_reach_the_limit_are_not_finished(policy):
    longer = sample(*policy, PROMPTS, SamplingSettings(samples=4, max_new_tokens=40))
    short = sample(*policy, PROMPTS, SamplingSettings(samples=4, max_new_tokens=3))
    seen = set()
    for whole, cut in zip(longer, short, strict=True):
        for one, start in zip(whole, cut, strict=True):
            # The limit changes nothing before it.
            assert start == one if start.finished else one.text.startswith(start.text)
            assert start.log_probability >= one.log_probability
            seen.add(start.finished)
    assert seen == {True, False}


def test_every_token_that_ends_a_response_ends_one(tiny_checkpoint):
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    stop = tokenizer.convert_tokens_to_ids(".")
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, stop]
    assert end_tokens(model, tokenizer) == (tokenizer.eos_token_id, stop)
    settings = SamplingSettings(samples=5, max_new_tokens=40)
    for found in sample(model, tokenizer, PROMPTS, settings):
        for one in found:
            assert "." not in one.text.split()
            assert one.finished


def test_without_settings_of_generation_the_tokenizer_names_the_end(tiny_checkpoint):
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    model.generation_config.eos_token_id = None
    assert end_tokens(model, tokenizer) == (tokenizer.eos_token_id,)
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="names a token that ends a response; set eos_token"):
        end_tokens(model, tokenizer)


@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_left_as_it_was(tiny_checkpoint, training):
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype="auto").train(training)
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    modules = [type(module) for module in model.modules()]
    list(sample(model, tokenizer, PROMPTS[:1], SamplingSettings(samples=2, max_new_tokens=3)))
    assert model.training == training
    assert [type(module) for module in model.modules()] == modules
    assert all(torch.equal(before[name], w) for name, w in model.state_dict().items())


def test_a_response_must_fit_into_what_the_model_reads(policy):
    model, tokenizer = policy
    longest = max(len(prompt_ids(tokenizer, prompt)) for prompt in PROMPTS)
    room = model.config.max_position_embeddings - longest
    settings = {"samples": 1, "temperature": 0.0}
    fits = SamplingSettings(**settings, max_new_tokens=room)
    assert len(list(sample(*policy, PROMPTS, fits))) == len(PROMPTS)
    with pytest.raises(UserError, match=f"a prompt of {longest} tokens with max_new_tokens="):
        list(sample(*policy, PROMPTS, SamplingSettings(**settings, max_new_tokens=room + 1)))


def test_no_prompt_has_no_samples(policy):
    assert list(sample(*policy, [], SamplingSettings())) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples", 0),
        ("max_new_tokens", 0),
        ("sampling_batch", 0),
        ("temperature", -0.1),
        ("temperature", math.nan),
    ],
)
def test_bad_settings_are_refused(name, value):
    with pytest.raises(UserError, match=name):
        SamplingSettings(**{name: value})
