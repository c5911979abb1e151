"""Direct preference optimisation: loss and gradients against plain autograd, and what is masked."""

import itertools
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.data.sources.simulator.annotators import simulate
from posttrain.errors import UserError
from posttrain.models.embedded import SPECIAL_TOKENS
from posttrain.models.float64 import compute_in_double
from posttrain.policy.datasets import demonstration_set, preference_set
from posttrain.policy.dpo import (
    PreferenceConfig,
    PreferenceTrainer,
    chosen_nll,
    format_tokens,
    optimize,
    special_ids,
)
from posttrain.policy.sft import FinetuningConfig, finetune
from posttrain.policy.trl_models import log_probs_in_double

GROUPS = [group.ranked for group in simulate(4, seed=15, multi_turn=0.5, edited_share=0.5)]
PREFERENCES = preference_set(GROUPS)
#: Prompt, chosen and rejected response of all pairs.
PAIRS = [
    (group.prompt, *pair) for group in GROUPS for pair in itertools.combinations(group.responses, 2)
]
BETA = 0.3
#: Plain gradient descent on all pairs at once.
PLAIN = {
    "gradient_checkpointing": False,
    "bf16": False,
    "use_cpu": True,
    "report_to": "none",
    "disable_tqdm": True,
    "max_length": None,
    "save_strategy": "no",
    "logging_strategy": "no",
    "optim": "sgd",
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
    "per_device_train_batch_size": len(PAIRS),
    "max_steps": 1,
}
TERMS = [
    {"mask_format_tokens": mask, "nll_normalization": normalization, "nll_weight": weight}
    for mask in (True, False)
    for normalization in ("sequence", "token")
    for weight in (0.0, 0.2)
]


@pytest.fixture
def load(tiny_checkpoint):
    """Loads a language model in float64, with noise of its own for every seed but 0."""

    def load(seed=0):
        model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype="auto")
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in model.parameters():
                noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
                weight += 0.05 * noise * bool(seed)
        return model

    return load


@pytest.fixture
def tokenizer(tiny_checkpoint):
    return AutoTokenizer.from_pretrained(tiny_checkpoint)


@pytest.fixture
def prepare(load, tokenizer, tmp_path):
    """A trainer as `optimize` makes it, before it trains, of a policy that left its reference."""

    def prepare(model=None, preferences=PREFERENCES, **settings):
        trainer = PreferenceTrainer(
            compute_in_double(load(1) if model is None else model),
            ref_model=compute_in_double(load()),
            args=PreferenceConfig(str(tmp_path), beta=BETA, **PLAIN | settings),
            train_dataset=preferences,
            processing_class=tokenizer,
        )
        for prepared in (trainer.model, trainer.ref_model):
            log_probs_in_double(prepared)
        return trainer

    return prepare


def words_log_probabilities(model, tokenizer, prompt, response):
    """Log-probability of each word of a response and of its end, from logits, without padding."""
    text = "".join(f"<|{turn.role}|> {turn.content} <|end|> " for turn in prompt)
    start = len(tokenizer(text + "<|assistant|>")["input_ids"])
    ids = torch.tensor([tokenizer(text + f"<|assistant|> {response} <|end|>")["input_ids"]])
    logits = model(ids, use_cache=False).logits[0, start - 1 : -1]
    taken = logits[torch.arange(len(logits)), ids[0, start:]]
    return taken - torch.logsumexp(logits, dim=-1)


def plain_loss(policy, reference, tokenizer, *, mask_format_tokens, nll_normalization, nll_weight):
    """The loss of all pairs, one sequence at a time."""
    preference, likelihoods = [], []
    for prompt, *responses in PAIRS:
        ratios = []
        for response in responses:
            ours = words_log_probabilities(policy, tokenizer, prompt, response)
            with torch.no_grad():
                theirs = words_log_probabilities(reference, tokenizer, prompt, response)
            compared = slice(0, -1) if mask_format_tokens else slice(None)
            ratios.append(ours[compared].sum() - theirs[compared].sum())
            if response is responses[0]:
                likelihoods.append(ours)
        preference.append(torch.log1p(torch.exp(-BETA * (ratios[0] - ratios[1]))))
    loss = torch.stack(preference).mean()
    if nll_normalization == "token":
        return loss - nll_weight * torch.cat(likelihoods).mean()
    return loss - nll_weight * torch.stack([words.mean() for words in likelihoods]).mean()


def collated(trainer):
    return trainer.data_collator([trainer.train_dataset[i] for i in range(len(PAIRS))])


def assert_same_gradients(model, expected):
    for (name, weight), (other, own) in zip(
        model.named_parameters(), expected.named_parameters(), strict=True
    ):
        assert name == other
        assert own.grad.abs().max() > 1e-6
        torch.testing.assert_close(weight.grad, own.grad, rtol=0, atol=1e-10)


def test_pairs_are_those_of_the_groups():
    assert {len(group.responses) for group in GROUPS} == {2, 3}
    assert len(PREFERENCES) == len(PAIRS) > len(GROUPS)
    for row, (prompt, chosen, rejected) in zip(PREFERENCES, PAIRS, strict=True):
        assert row["prompt"] == [{"role": t.role, "content": t.content} for t in prompt]
        assert row["chosen"] == [{"role": "assistant", "content": chosen}]
        assert row["rejected"] == [{"role": "assistant", "content": rejected}]


@pytest.mark.parametrize("terms", TERMS, ids=lambda terms: "-".join(map(str, terms.values())))
def test_loss_and_gradients_are_those_of_plain_autograd(prepare, load, tokenizer, terms):
    trainer = prepare(**terms)
    policy = compute_in_double(load(1))
    loss = trainer.compute_loss(trainer.model, collated(trainer))
    expected = plain_loss(policy, compute_in_double(load()), tokenizer, **terms)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(expected.item(), abs=1e-10)
    loss.backward()
    expected.backward()
    assert_same_gradients(trainer.model, policy)
    assert all(weight.grad is None for weight in trainer.ref_model.parameters())


def test_the_eight_losses_differ(load, tokenizer):
    policy, reference = compute_in_double(load(1)), compute_in_double(load())
    found = [plain_loss(policy, reference, tokenizer, **terms).item() for terms in TERMS]
    # Without a weight, the normalisation does nothing.
    assert len({round(loss, 6) for loss in found}) == 6


def test_a_finetuned_policy_has_the_same_loss(prepare, load, tokenizer, tmp_path):
    model = load()
    demonstrations = demonstration_set([pair[0] for pair in PAIRS], [pair[1] for pair in PAIRS])
    config = FinetuningConfig(str(tmp_path / "sft"), learning_rate=0.3, **PLAIN)
    finetune(model, tokenizer, demonstrations, config)
    policy = compute_in_double(load())
    policy.load_state_dict(model.state_dict())
    trainer = prepare(model, **TERMS[1])
    model.zero_grad()
    loss = trainer.compute_loss(model, collated(trainer))
    expected = plain_loss(policy, compute_in_double(load()), tokenizer, **TERMS[1])
    assert loss.item() == pytest.approx(expected.item(), abs=1e-10)
    loss.backward()
    expected.backward()
    assert_same_gradients(model, policy)


def test_outputs_come_with_the_same_loss(prepare):
    trainer = prepare(**TERMS[1])
    batch = collated(trainer)
    alone = trainer.compute_loss(trainer.model, batch)
    with pytest.warns(FutureWarning, match="return_outputs"):
        loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert loss.item() == alone.item()
    assert outputs.logits.shape[:2] == batch["input_ids"].shape


def test_the_likelihood_of_chosen_responses_is_logged(prepare, load, tokenizer):
    trainer = prepare(**TERMS[1])
    trainer.model.train()
    trainer.compute_loss(trainer.model, collated(trainer))
    models = [compute_in_double(load(1)), compute_in_double(load()), tokenizer]
    with_term, without = (plain_loss(*models, **terms).item() for terms in (TERMS[1], TERMS[0]))
    (logged,) = trainer._metrics["train"]["nll"]
    assert logged == pytest.approx((with_term - without) / 0.2, abs=1e-9)


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("weight", [0.0, 0.2])
def test_ends_have_a_gradient_from_the_terms_that_count_them(prepare, tokenizer, mask, weight):
    trainer = prepare(mask_format_tokens=mask, nll_weight=weight)
    outputs = []
    hook = trainer.model.lm_head.register_forward_hook(lambda _m, _i, out: outputs.append(out))
    batch = collated(trainer)
    loss = trainer.compute_loss(trainer.model, batch)
    hook.remove()
    (logits,) = outputs  # one computation serves both terms
    logits.retain_grad()
    loss.backward()
    moved = logits.grad.abs().sum(-1) > 0
    inside = batch["completion_mask"].bool()
    ends = inside & (batch["input_ids"] == tokenizer.eos_token_id)
    assert ends.sum(1).eq(1).all()
    # A token's log-probability comes from the logits one place before.
    chosen, rejected = moved[:, :-1][ends[:, 1:]].chunk(2)
    assert (chosen == (not mask or weight > 0)).all()
    assert (rejected == (not mask)).all()
    assert moved[:, :-1][(inside & ~ends)[:, 1:]].all()
    assert not moved[:, :-1][~inside[:, 1:]].any()


def test_reference_computed_beforehand_gives_the_same_loss(prepare, load, tokenizer):
    terms = {"mask_format_tokens": False, "nll_normalization": "sequence", "nll_weight": 0.2}
    trainer = prepare(precompute_ref_log_probs=True, **terms)
    loss = trainer.compute_loss(trainer.model, collated(trainer))
    expected = plain_loss(
        compute_in_double(load(1)), compute_in_double(load()), tokenizer, **terms
    ).item()
    # TRL keeps what it computed beforehand in float32.
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_reference_computed_beforehand_does_not_go_with_a_mask(tmp_path):
    with pytest.raises(UserError, match="mask_format_tokens to false"):
        config(tmp_path, precompute_ref_log_probs=True)


def config(folder, **settings):
    return PreferenceConfig(str(folder), beta=BETA, **PLAIN | settings)


@pytest.mark.parametrize("terms", [TERMS[1], TERMS[6]])
def test_one_step_follows_the_gradient_of_the_loss(load, tokenizer, tmp_path, terms):
    model, reference, rate = load(1), load(), 0.2
    trainer = optimize(
        model,
        tokenizer,
        PREFERENCES,
        config(tmp_path, learning_rate=rate, **terms),
        reference=reference,
    )
    assert trainer.model is model
    assert not model.training
    policy = compute_in_double(load(1))
    plain_loss(policy, compute_in_double(load()), tokenizer, **terms).backward()
    for weight, before in zip(model.parameters(), policy.parameters(), strict=True):
        torch.testing.assert_close(weight, before - rate * before.grad, rtol=0, atol=1e-10)
    for weight, before in zip(reference.parameters(), load().parameters(), strict=True):
        assert torch.equal(weight, before)


def test_the_reference_is_the_model_as_it_was(load, tokenizer, tmp_path):
    model = load(1)
    trainer = optimize(model, tokenizer, PREFERENCES, config(tmp_path, learning_rate=0.2))
    reference = trainer.ref_model.state_dict()
    for name, weight in load(1).state_dict().items():
        torch.testing.assert_close(reference[name], weight, rtol=0, atol=1e-12, msg=name)


def test_training_prefers_chosen_responses_more_than_the_reference_does(load, tokenizer, tmp_path):
    model, reference = load(), compute_in_double(load())
    steps = config(tmp_path, learning_rate=0.05, optim="sgd", max_steps=20)
    optimize(model, tokenizer, PREFERENCES, steps, reference=load())
    losses = [
        plain_loss(
            policy, reference, tokenizer,
            mask_format_tokens=True, nll_normalization="sequence", nll_weight=0.0,
        ).item()
        for policy in (reference, model)
    ]  # fmt: skip
    assert losses[0] == pytest.approx(math.log(2))
    assert losses[1] < losses[0] - 0.01


def test_defaults_are_those_of_llama_3(tmp_path):
    found = PreferenceConfig(str(tmp_path), use_cpu=True, bf16=False)
    assert (found.learning_rate, found.beta, found.nll_weight) == (1e-5, 0.1, 0.2)
    assert found.mask_format_tokens


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_type": ["ipo"]}, r"loss_type \['ipo'\] is not sigmoid"),
        ({"loss_type": ["sigmoid", "sft"]}, "is not sigmoid; give nll_weight"),
        ({"nll_weight": -0.1}, "nll_weight must be at least 0, not -0.1"),
        ({"nll_weight": math.nan}, "nll_weight must be at least 0, not nan"),
        ({"nll_normalization": "words"}, "'words'; known: sequence, token"),
    ],
)
def test_other_settings_are_refused(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        config(tmp_path, **settings)


@pytest.mark.parametrize(
    ("ids", "response", "expected"),
    [
        # One end, and padding of the same token behind the response.
        ([5, 7, 8, 5, 5], [0, 1, 1, 1, 0], [0, 0, 0, 1, 0]),
        # A line break behind the end.
        ([7, 8, 5, 9, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 0]),
        # No end, as where a response was cut: nothing is masked, whatever the prompt holds.
        ([5, 7, 8, 9, 9], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]),
        # Several: each is masked, and text only behind the last.
        ([7, 5, 8, 6, 9], [0, 1, 1, 1, 1], [0, 1, 0, 1, 1]),
        # A response that begins with a special token.
        ([7, 6, 8, 9, 5], [0, 1, 1, 1, 1], [0, 1, 0, 0, 1]),
        ([5, 5, 5, 5, 5], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]),
    ],
)
def test_format_tokens(ids, response, expected):
    special = torch.tensor([5, 6])
    # Rows do not touch one another.
    rows = torch.tensor([ids, [5, 5, 5, 5, 5]])
    masks = torch.tensor([response, [0, 0, 0, 1, 1]])
    found = format_tokens(rows, masks, special)
    assert found.dtype == torch.bool
    assert found.int().tolist() == [expected, [0, 0, 0, 1, 1]]


def test_special_tokens_are_those_of_the_chat_format(tokenizer):
    assert special_ids(tokenizer) == set(tokenizer.convert_tokens_to_ids(SPECIAL_TOKENS))


def test_likelihood_of_chosen_responses_by_hand():
    log_probs = torch.tensor([[-1.0, -2.0, -3.0], [-5.0, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    assert chosen_nll(log_probs, mask, "token").item() == pytest.approx(11 / 4)
    assert chosen_nll(log_probs, mask, "sequence").item() == pytest.approx((2 + 5) / 2)
