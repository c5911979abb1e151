"""RankingTrainer: exact batches, exact gradients in every exact layout, and a run that learns."""

import json
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid
from transformers import AutoModelForSequenceClassification, TrainerCallback
from trl.trainer.reward_trainer import DataCollatorForPreference

from posttrain.data.sources.simulator.annotators import simulate
from posttrain.models import reward_model
from posttrain.models.float64 import compute_in_double
from posttrain.models.reward_model import score, score_head
from posttrain.rows.layout import LAYOUTS, Layout
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.training import checkpoints, saving
from posttrain.training.checkpoints import MANIFEST, checkpoints_in, verify_manifest
from posttrain.training.collator import GroupCollator, TrainingGroup, TrainingPair, training_set
from posttrain.training.config import RankingConfig
from posttrain.training.losses import ranking_loss
from posttrain.training.pairing import PAIRINGS, Pairing
from posttrain.training.predictions import NO_PAIR
from posttrain.training.sampler import Sizes, StepSampler
from posttrain.training.step_batches import (
    EvaluationBatches,
    StepItems,
    TrainingBatches,
    collator_for,
    shares_rows,
    step_loader,
    step_sampler,
)
from posttrain.training.trainer import RankingTrainer

SEPARATE, EXACT = LAYOUTS["separate"], LAYOUTS["exact"]
CAUSAL = Layout("single", "causal", "running")
EXACT_LAYOUTS = {"separate": SEPARATE, "exact": EXACT, "shuffled": Layout(order="shuffled")}
# Room for several groups: the largest of ``tiny_groups`` has 57 tokens in a row.
ROW_TOKENS = 130

#: Weights move by half of the gradient, once.
ONE_STEP = {
    "max_steps": 1,
    "optim": "sgd",
    "learning_rate": 0.5,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
}

PAIR = TrainingGroup(TokenizedGroup((5,), ((6, 7), (8,))), (TrainingPair(0, 1, 1 / 3, 2.0),))
TRIPLE = TrainingGroup(
    TokenizedGroup((9, 10), ((11,), (12, 13), (14,))),
    (TrainingPair(0, 1, 0.0, 1.0), TrainingPair(0, 2, 0.5, 3.0), TrainingPair(1, 2, 1.0, 4.0)),
)


@pytest.fixture
def tiny_model(tiny_model):
    """As it is computed while it is trained, in float64 throughout."""
    model, tokenizer = tiny_model
    return compute_in_double(model), tokenizer


@pytest.fixture
def groups(tiny_groups):
    """One pair of each group, so that every group weighs the same."""
    return [
        TrainingGroup(tokens, (TrainingPair(0, 1, margin=(place % 4) / 3),))
        for place, tokens in enumerate(tiny_groups)
    ]


@pytest.fixture
def mixed(tiny_groups):
    """All pairs of each group: one or three, with margins and weights that differ."""
    return [
        TrainingGroup(
            tokens,
            tuple(
                replace(pair, margin=((2 * place + k) % 5) / 3, weight=0.5 + (place + k) % 4)
                for k, pair in enumerate(TrainingGroup.with_all_pairs(tokens).pairs)
            ),
        )
        for place, tokens in enumerate(tiny_groups)
    ]


@pytest.fixture
def make_trainer(tmp_path):
    def make(
        model,
        groups,
        *,
        layout=EXACT,
        pack_length=None,
        loss_type="pairs",
        center_rewards_coefficient=0.0,
        evaluation=None,
        **settings,
    ):
        defaults = {
            "groups_per_step": 8,
            "lr_scheduler_type": "linear",
            "warmup_steps": 0,
            "weight_decay": 0.0,
            "adam_beta2": 0.999,
            "adam_epsilon": 1e-8,
            "loss_type": loss_type,
            "center_rewards_coefficient": center_rewards_coefficient,
            "use_cpu": True,
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }
        return RankingTrainer(
            model,
            RankingConfig(str(tmp_path / "run"), **defaults | settings),
            train_dataset=training_set(groups),
            eval_dataset=training_set(evaluation) if evaluation else None,
            data_collator=GroupCollator(0, layout, pack_length),
        )

    return make


def collate(groups, pad_token_id=0, layout=EXACT, pack_length=None):
    return GroupCollator(pad_token_id, layout, pack_length)(list(training_set(groups)))


def snapshot(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def duplicated(groups):
    """Each pair as two rows of its own, with its margin and its weight scaled to mean 1."""
    rows = [
        (
            [*group.tokens.prompt, *group.tokens.responses[pair.winner]],
            [*group.tokens.prompt, *group.tokens.responses[pair.loser]],
            pair.margin,
            pair.weight,
        )
        for group in groups
        for pair in group.pairs
    ]
    mean_weight = sum(row[3] for row in rows) / len(rows)
    return [(*row[:3], row[3] / mean_weight) for row in rows]


def gradients(model):
    return {name: value.grad.clone() for name, value in model.named_parameters()}


def plain_gradients(model, groups, *, weighted=False):
    """Gradients by plain autograd: every row on its own through the stock forward."""
    model.zero_grad()
    total = 0.0
    pairs = duplicated(groups)
    for *rows, margin, weight in pairs:
        winner, loser = (model(torch.tensor([row])).logits[0, 0] for row in rows)
        total = total - (weight if weighted else 1.0) * logsigmoid(winner - loser - margin)
    (total / len(pairs)).backward()
    return gradients(model)


def duplicated_gradients(model, groups):
    """Gradients of TRL's batches: two padded rows a pair, scored by the stock forward."""
    model.zero_grad()
    winners, losers, margins, weights = zip(*duplicated(groups), strict=True)
    batch = DataCollatorForPreference(pad_token_id=model.config.pad_token_id)(
        [
            {"chosen_ids": winner, "rejected_ids": loser}
            for winner, loser in zip(winners, losers, strict=True)
        ]
    )
    assert len(batch["input_ids"]) == 2 * len(margins)
    winning, losing = model(**batch).logits.squeeze(-1).chunk(2)
    margins, weights = (torch.tensor(part, dtype=torch.float64) for part in (margins, weights))
    (-weights * logsigmoid(winning - losing - margins)).mean().backward()
    return gradients(model)


def mean_loss(model, groups):
    """Mean loss over pairs, weights aside."""
    by_group = score(
        model, [group.tokens for group in groups], pad_token_id=0, layout=SEPARATE
    ).split([len(group.tokens.responses) for group in groups])
    pairs = [
        (scores[pair.winner], scores[pair.loser], pair.margin)
        for scores, group in zip(by_group, groups, strict=True)
        for pair in group.pairs
    ]
    winners, losers, margins = (
        torch.tensor(part, dtype=torch.float64) for part in zip(*pairs, strict=True)
    )
    return ranking_loss(winners, losers, margins=margins).item()


def rows_of_training(model, mixed, make_trainer, **settings):
    """Shape of the rows of each micro-batch of an epoch, and tokens that are no padding."""
    trainer = make_trainer(model, mixed, **settings)
    batches = [b for step in trainer.get_train_dataloader() for b in step["micro_batches"]]
    tokens = sum(int((b["document_id"] >= 0).sum()) for b in batches if "document_id" in b)
    return [tuple(b["input_ids"].shape) for b in batches], tokens


@pytest.mark.parametrize("most", [150, 40])
def test_groups_share_a_row_where_attention_is_in_two_pieces(tiny_model, mixed, make_trainer, most):
    model, _ = tiny_model
    shapes, tokens = rows_of_training(model, mixed, make_trainer, max_tokens_per_device=most)
    assert {rows for rows, _ in shapes} == {1}
    assert sum(length for _, length in shapes) == tokens
    # The longest group has 57 tokens, more than the smaller limit.
    assert max(length for _, length in shapes) <= max(most, 57)
    assert shares_rows(model, GroupCollator(0, EXACT))


@pytest.mark.parametrize(
    ("layout", "attention", "pack_length"),
    [(CAUSAL, None, None), (SEPARATE, None, None), (EXACT, "sdpa", None), (EXACT, None, 60)],
)
def test_elsewhere_rows_are_as_they_were_asked_for(
    tiny_model, mixed, make_trainer, layout, attention, pack_length
):
    model, _ = tiny_model
    if attention:
        model.set_attn_implementation(attention)
    collator, rows = GroupCollator(0, layout, pack_length), training_set(mixed)
    config = make_trainer(model, mixed).config
    assert collator_for(model, rows, collator, config) is collator
    assert shares_rows(model, collator) == (pack_length is not None)


@pytest.mark.parametrize("pack_length", [None, ROW_TOKENS])
@pytest.mark.parametrize("layout", EXACT_LAYOUTS.values(), ids=EXACT_LAYOUTS)
@pytest.mark.parametrize("count", [2, 3, None], ids=["pairs", "triples", "both"])
def test_the_gradient_is_that_of_plain_autograd_and_of_duplicated_pairs(
    tiny_model, mixed, make_trainer, count, layout, pack_length
):
    model, _ = tiny_model
    chosen = [g for g in mixed if count in (None, len(g.tokens.responses))][:10]
    expected = plain_gradients(model, chosen, weighted=True)
    of_duplicates = duplicated_gradients(model, chosen)
    batch = collate(chosen, 0, layout, pack_length)
    rows = sum(len(g.tokens.responses) if layout.rows == "separate" else 1 for g in chosen)
    assert (len(batch["input_ids"]) < rows / 2) == (pack_length is not None)
    assert len(batch["winners"]) == sum(len(group.pairs) for group in chosen)
    model.zero_grad()
    make_trainer(model, chosen).compute_loss(model, batch).backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-13)
        size = of_duplicates[name].norm()
        assert size > 0
        assert (gradient - of_duplicates[name]).norm() <= 1e-8 * size


def test_a_causal_row_has_another_gradient(tiny_model, mixed, make_trainer):
    # The tests above would pass vacuously if responses that see each other made no difference.
    model, _ = tiny_model
    expected = plain_gradients(model, mixed[:10], weighted=True)
    model.zero_grad()
    batch = collate(mixed[:10], 0, CAUSAL)
    make_trainer(model, mixed[:10]).compute_loss(model, batch).backward()
    for name, gradient in gradients(model).items():
        assert (gradient - expected[name]).norm() > 1e-3 * expected[name].norm()


def test_scaled_bradley_terry_has_an_effect_at_batch_size_one(tiny_model, groups, make_trainer):
    # Dividing by a batch's own weights would cancel them here.
    model, _ = tiny_model
    groups = [
        replace(group, pairs=(replace(group.pairs[0], weight=weight),))
        for group, weight in zip(groups, (1.0, 3.0), strict=False)
    ]
    before = snapshot(model)
    plain = plain_gradients(model, groups)
    # Weights 1 and 3, scaled to mean 1, are ½ and 3/2; two batches are averaged.
    weighted = plain_gradients(model, groups, weighted=True)
    make_trainer(
        model,
        groups,
        max_tokens_per_device=1,
        **ONE_STEP,
    ).train()
    for name, after in snapshot(model).items():
        expected = before[name] - 0.5 * weighted[name]
        torch.testing.assert_close(after, expected, rtol=0, atol=1e-12)
        assert (weighted[name] - plain[name]).norm() > 0.02 * plain[name].norm()


def test_the_trainer_keeps_the_columns_that_its_collator_needs(tiny_model, groups, make_trainer):
    model, _ = tiny_model
    trainer = make_trainer(model, groups, remove_unused_columns=True)
    (batch,) = next(iter(trainer.get_train_dataloader()))["micro_batches"]
    assert set(batch) >= {"input_ids", "score_index", "margins", "weights"}


@pytest.mark.parametrize("pack_length", [None, ROW_TOKENS])
@pytest.mark.parametrize("layout", EXACT_LAYOUTS.values(), ids=EXACT_LAYOUTS)
@pytest.mark.parametrize("max_tokens_per_device", [None, 200])
def test_a_step_follows_the_gradient(
    tiny_model, groups, make_trainer, max_tokens_per_device, layout, pack_length
):
    model, _ = tiny_model
    groups = groups[:8]
    assert {len(group.tokens.responses) for group in groups} == {2, 3}
    before, expected = snapshot(model), plain_gradients(model, groups)
    make_trainer(
        model,
        groups,
        layout=layout,
        pack_length=pack_length,
        max_tokens_per_device=max_tokens_per_device,
        **ONE_STEP,
    ).train()
    for name, after in snapshot(model).items():
        torch.testing.assert_close(after, before[name] - 0.5 * expected[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("pack_length", [None, ROW_TOKENS])
@pytest.mark.parametrize("layout", EXACT_LAYOUTS.values(), ids=EXACT_LAYOUTS)
@pytest.mark.parametrize("max_tokens_per_device", [None, 200, 1])
def test_a_step_on_pairs_and_triples_follows_the_gradient_of_the_mean_over_pairs(
    tiny_model, mixed, make_trainer, layout, pack_length, max_tokens_per_device
):
    model, _ = tiny_model
    mixed = mixed[:8]
    assert {len(group.pairs) for group in mixed} == {1, 3}
    before, expected = snapshot(model), plain_gradients(model, mixed, weighted=True)
    make_trainer(
        model,
        mixed,
        layout=layout,
        pack_length=pack_length,
        max_tokens_per_device=max_tokens_per_device,
        **ONE_STEP,
    ).train()
    for name, after in snapshot(model).items():
        torch.testing.assert_close(after, before[name] - 0.5 * expected[name], rtol=0, atol=1e-12)


def test_parts_do_not_change_the_order_of_shuffled_responses(tiny_checkpoint, mixed, make_trainer):
    """In causal rows the order matters, so all weights would differ."""

    def trained(max_tokens_per_device):
        model, _ = reward_model.load(tiny_checkpoint)
        make_trainer(
            model,
            mixed,
            layout=LAYOUTS["causal"],
            max_tokens_per_device=max_tokens_per_device,
            groups_per_step=5,
            num_train_epochs=2,
            learning_rate=0.01,
        ).train()
        return snapshot(model)

    expected = trained(None)
    for max_tokens_per_device in (200, 1):
        for name, after in trained(max_tokens_per_device).items():
            torch.testing.assert_close(after, expected[name], rtol=0, atol=1e-9)


def test_training_in_any_exact_layout_gives_the_weights_of_separate_rows(
    tiny_checkpoint, mixed, make_trainer
):
    def trained(layout, pack_length=None):
        model, _ = reward_model.load(tiny_checkpoint)
        make_trainer(
            model,
            mixed,
            layout=layout,
            pack_length=pack_length,
            groups_per_step=5,
            num_train_epochs=2,
            learning_rate=1e-3,
        ).train()
        return snapshot(model)

    expected = trained(SEPARATE)
    before = snapshot(reward_model.load(tiny_checkpoint)[0])
    for layout, pack_length in ((EXACT, None), (EXACT, ROW_TOKENS), (SEPARATE, ROW_TOKENS)):
        for name, weights in trained(layout, pack_length).items():
            torch.testing.assert_close(weights, expected[name], rtol=0, atol=1e-9)
            assert (weights - before[name]).abs().max() > 1e-3
    for name, weights in trained(CAUSAL).items():
        assert (weights - expected[name]).abs().max() > 1e-5


@pytest.mark.parametrize("pack_length", [None, ROW_TOKENS])
@pytest.mark.parametrize("layout", EXACT_LAYOUTS.values(), ids=EXACT_LAYOUTS)
def test_rankings_have_the_gradient_of_choosing_the_best_of_what_is_left(
    tiny_model, tiny_groups, make_trainer, layout, pack_length
):
    model, _ = tiny_model
    groups = [TrainingGroup.with_all_pairs(tokens) for tokens in tiny_groups[:8]]
    model.zero_grad()
    total = 0.0
    for tokens in tiny_groups[:8]:
        rows = [[*tokens.prompt, *response] for response in tokens.responses]
        scores = torch.stack([model(torch.tensor([row])).logits[0, 0] for row in rows])
        for best in range(len(rows) - 1):
            total = total - scores[best:].log_softmax(0)[0]
    (total / len(groups)).backward()
    expected = gradients(model)
    model.zero_grad()
    trainer = make_trainer(model, groups, loss_type="plackett-luce")
    trainer.compute_loss(model, collate(groups, 0, layout, pack_length)).backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("weighting", ["pair", "prompt"])
@pytest.mark.parametrize("name", PAIRINGS)
def test_a_step_on_every_pairing_of_edits_follows_the_gradient_of_duplicated_pairs(
    tiny_model, tiny_groups, make_trainer, name, weighting
):
    # With margins, a filter, accumulation and several groups in one row.
    model, _ = tiny_model
    pairing = Pairing(name, weighting=weighting, margins="large", min_strength=3)
    ranked = [group.ranked for group in simulate(24, seed=5, edited_share=0.5)]
    built = [
        pairing.apply(group, tokens) for group, tokens in zip(ranked, tiny_groups, strict=True)
    ]
    chosen = [group for group in built if group.pairs][:8]
    assert len(chosen) == 8
    assert any(not group.pairs for group in built)
    assert {pair.margin for group in chosen for pair in group.pairs} > {2.0}
    before, expected = snapshot(model), duplicated_gradients(model, chosen)
    make_trainer(
        model,
        chosen,
        pack_length=ROW_TOKENS,
        max_tokens_per_device=200,
        **ONE_STEP,
    ).train()
    for parameter, after in snapshot(model).items():
        torch.testing.assert_close(
            after, before[parameter] - 0.5 * expected[parameter], rtol=0, atol=1e-9
        )


@pytest.mark.parametrize("max_tokens_per_device", [None, 200, 1])
def test_a_step_on_rankings_follows_the_gradient_of_the_mean_over_groups(
    tiny_model, tiny_groups, make_trainer, max_tokens_per_device
):
    model, _ = tiny_model
    groups = [TrainingGroup.with_all_pairs(tokens) for tokens in tiny_groups[:8]]
    before = snapshot(model)
    model.zero_grad()
    trainer = make_trainer(model, groups, loss_type="plackett-luce")
    trainer.compute_loss(model, collate(groups, 0, LAYOUTS["exact"])).backward()
    expected = gradients(model)
    model.zero_grad()
    make_trainer(
        model,
        groups,
        loss_type="plackett-luce",
        max_tokens_per_device=max_tokens_per_device,
        **ONE_STEP,
    ).train()
    for name, after in snapshot(model).items():
        torch.testing.assert_close(after, before[name] - 0.5 * expected[name], rtol=0, atol=1e-12)


def test_rankings_of_pairs_alone_train_like_pairs(tiny_checkpoint, tiny_groups, make_trainer):
    groups = [
        TrainingGroup.with_all_pairs(tokens) for tokens in tiny_groups if len(tokens.responses) == 2
    ]
    found = []
    for loss_type in ("pairs", "plackett-luce"):
        model, _ = reward_model.load(tiny_checkpoint)
        before = snapshot(model)
        make_trainer(model, groups, loss_type=loss_type, learning_rate=1e-3).train()
        found.append(snapshot(model))
    for name, weights in found[0].items():
        torch.testing.assert_close(found[1][name], weights, rtol=0, atol=1e-10)
        assert (weights - before[name]).abs().max() > 1e-4


@pytest.mark.parametrize(
    "pairs",
    [
        (TrainingPair(0, 1), TrainingPair(1, 2)),
        (TrainingPair(0, 1), TrainingPair(0, 2), TrainingPair(1, 2, weight=2.0)),
        (TrainingPair(0, 1), TrainingPair(0, 2), TrainingPair(2, 1)),
        (TrainingPair(0, 1), TrainingPair(0, 1), TrainingPair(1, 2)),
    ],
    ids=["a pair missing", "a weight", "a pair reversed", "a pair twice"],
)
def test_rankings_with_anything_else_than_all_pairs_are_refused(tiny_model, make_trainer, pairs):
    model, _ = tiny_model
    groups = [PAIR.with_all_pairs(PAIR.tokens), replace(TRIPLE, pairs=pairs)]
    trainer = make_trainer(model, groups, loss_type="plackett-luce")
    with pytest.raises(ValueError, match=r"ranks all responses of a group.*with_all_pairs"):
        trainer.train()


def test_a_model_trained_on_rankings_is_evaluated_on_any_pairs(tiny_model, mixed, make_trainer):
    model, _ = tiny_model
    rankings = [TrainingGroup.with_all_pairs(group.tokens) for group in mixed]
    trainer = make_trainer(model, rankings, loss_type="plackett-luce", evaluation=mixed)
    found = trainer.evaluate()
    assert found == pytest.approx(
        make_trainer(model, mixed, evaluation=mixed).evaluate() | found, abs=1e-12
    )
    assert 0 < found["eval_loss"] < 5


def test_unknown_objectives_and_centred_rankings_are_refused(tiny_model, groups, make_trainer):
    model, _ = tiny_model
    with pytest.raises(ValueError, match="unknown loss_type 'luck'; known: pairs, plackett-luce"):
        make_trainer(model, groups, loss_type="luck")
    with pytest.raises(ValueError, match="center_rewards_coefficient is defined on pairs"):
        make_trainer(model, groups, loss_type="plackett-luce", center_rewards_coefficient=0.1)


def test_centring_reaches_the_loss(tiny_model, groups, make_trainer):
    model, _ = tiny_model
    torch.nn.init.ones_(model.score.weight)
    batch = collate(groups[:5])
    plain = make_trainer(model, groups).compute_loss(model, batch)
    centred, outputs = make_trainer(model, groups, center_rewards_coefficient=0.25).compute_loss(
        model, batch, return_outputs=True
    )
    winners, losers = outputs["winners"], outputs["losers"]
    added = 0.25 * ((winners + losers) ** 2).mean()
    assert added > 0.01
    torch.testing.assert_close(centred - plain, added, rtol=1e-10, atol=1e-12)


#: None, one or two of the responses, and all; so parts hold uneven numbers of labels.
LABELS = [(), (True, None, None), (None, False, True), (False, False, False), (), ()]


@pytest.fixture
def labelled(mixed):
    """All pairs of each group, and labels of some responses."""
    return [
        replace(group, labels=LABELS[place % 6][: len(group.tokens.responses)])
        for place, group in enumerate(mixed)
    ]


def add_label_gradients(model, groups, weight):
    """Add the gradient of the cross-entropy, every row on its own through the stock forward."""
    found = [
        (model(torch.tensor([[*group.tokens.prompt, *response]])).logits[0, 0], float(label))
        for group in groups
        for response, label in zip(group.tokens.responses, group.labels, strict=bool(group.labels))
        if label is not None
    ]
    scores, labels = zip(*found, strict=True)
    scores = torch.stack(scores)
    loss = binary_cross_entropy_with_logits(scores, torch.tensor(labels, dtype=scores.dtype))
    (weight * loss).backward()
    return gradients(model)


@pytest.mark.parametrize(
    ("layout", "pack_length"), [(SEPARATE, None), (EXACT, None), (EXACT, ROW_TOKENS)]
)
@pytest.mark.parametrize("max_tokens_per_device", [None, 200, 1])
def test_a_step_with_labels_follows_the_gradient_of_both_means_whatever_the_parts(
    tiny_model, labelled, make_trainer, layout, pack_length, max_tokens_per_device
):
    model, _ = tiny_model
    groups = labelled[:8]
    before = snapshot(model)
    plain = plain_gradients(model, groups, weighted=True)
    expected = add_label_gradients(model, groups, 0.7)
    make_trainer(
        model,
        groups,
        layout=layout,
        pack_length=pack_length,
        max_tokens_per_device=max_tokens_per_device,
        auxiliary_weight=0.7,
        **ONE_STEP,
    ).train()
    for name, after in snapshot(model).items():
        torch.testing.assert_close(after, before[name] - 0.5 * expected[name], rtol=0, atol=1e-12)
        assert (expected[name] - plain[name]).norm() > 0.02 * plain[name].norm()


@pytest.mark.parametrize("max_tokens_per_device", [None, 1])
def test_a_step_on_rankings_with_labels_follows_both_gradients(
    tiny_model, labelled, make_trainer, max_tokens_per_device
):
    model, _ = tiny_model
    groups = [
        replace(TrainingGroup.with_all_pairs(group.tokens), labels=group.labels)
        for group in labelled[:8]
    ]
    before = snapshot(model)
    model.zero_grad()
    trainer = make_trainer(model, groups, loss_type="plackett-luce")
    trainer.compute_loss(model, collate(groups)).backward()
    expected = add_label_gradients(model, groups, 0.7)
    make_trainer(
        model,
        groups,
        loss_type="plackett-luce",
        max_tokens_per_device=max_tokens_per_device,
        auxiliary_weight=0.7,
        **ONE_STEP,
    ).train()
    for name, after in snapshot(model).items():
        torch.testing.assert_close(after, before[name] - 0.5 * expected[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("processes", [2, 7])
def test_what_processes_add_is_the_gradient_of_a_step_with_labels(
    tiny_model, labelled, make_trainer, processes
):
    # Of seven processes, two compute a micro-batch that does not count.
    model, _ = tiny_model
    groups = labelled[:5]
    plain_gradients(model, groups, weighted=True)
    expected = add_label_gradients(model, groups, 0.7)
    model.zero_grad()
    trainer = make_trainer(model, groups, auxiliary_weight=0.7)
    items, batches = StepItems(trainer.train_dataset), TrainingBatches(trainer.collator, False)
    sizes = Sizes.from_dataset(trainer.train_dataset, EXACT, shared_rows=False)
    idle = 0
    for process in range(processes):
        (step,) = StepSampler(sizes, groups_per_step=5, processes=processes, process=process)
        idle += any(micro_batch.is_dummy for micro_batch in step.micro_batches)
        for micro_batch in batches(items.__getitems__(step))["micro_batches"]:
            trainer.compute_loss(model, micro_batch).backward()
    assert idle == max(0, processes - 5)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)


def test_labels_reach_the_loss_of_a_batch(tiny_model, labelled, make_trainer):
    model, _ = tiny_model
    torch.nn.init.ones_(model.score.weight)
    batch = collate(labelled)
    scores = score(model, [group.tokens for group in labelled], pad_token_id=0)
    expected = binary_cross_entropy_with_logits(
        scores[batch["labelled"]].double(), batch["acceptable"].double()
    )
    plain = make_trainer(model, labelled).compute_loss(model, batch)
    found = make_trainer(model, labelled, auxiliary_weight=0.3).compute_loss(model, batch)
    assert (found - plain).item() == pytest.approx(0.3 * expected.item(), abs=1e-6)


def logged_and_trained(checkpoint, make_trainer, groups, **settings):
    """What two epochs log, times aside, and the weights after them."""
    model, _ = reward_model.load(checkpoint)
    trainer = make_trainer(
        model,
        groups,
        evaluation=groups,
        num_train_epochs=2,
        learning_rate=1e-3,
        max_tokens_per_device=200,
        logging_strategy="steps",
        logging_steps=1,
        eval_strategy="epoch",
        **settings,
    )
    trainer.train()
    timed = ("per_second", "runtime")
    logs = [
        {name: value for name, value in entry.items() if not name.endswith(timed)}
        for entry in trainer.state.log_history
    ]
    return logs, snapshot(model)


def test_labels_change_nothing_without_an_auxiliary_weight(
    tiny_checkpoint, mixed, labelled, make_trainer
):
    expected, weights = logged_and_trained(tiny_checkpoint, make_trainer, mixed)
    logs, found = logged_and_trained(tiny_checkpoint, make_trainer, labelled)
    assert logs == expected
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_a_step_without_labels_has_no_auxiliary_loss(tiny_checkpoint, mixed, make_trainer):
    # The label is met in the last step only.
    labels = (True, False, None)[: len(mixed[-1].tokens.responses)]
    groups = [*mixed[:-1], replace(mixed[-1], labels=labels)]
    options = {"train_sampling_strategy": "sequential", "groups_per_step": 6}
    (plain, _), (found, _) = (
        logged_and_trained(tiny_checkpoint, make_trainer, groups, **options, **settings)
        for settings in ({}, {"auxiliary_weight": 1.0})
    )
    assert found[:3] == plain[:3]
    assert found[3]["loss"] > plain[3]["loss"]
    # All else that a step logs is of pairs, whose scores the step itself has not yet moved.
    names = ("accuracy", "ties", "score_mean", "score_std", "difference_rms", "padding")
    for name in names:
        assert found[3][name] == plain[3][name]


def test_the_loss_of_labelled_data_is_evaluated_on_pairs(tiny_model, labelled, make_trainer):
    model, _ = tiny_model
    found = [
        make_trainer(model, labelled, evaluation=labelled, auxiliary_weight=weight).evaluate()
        for weight in (0.0, 5.0)
    ]
    for name in ("eval_loss", "eval_accuracy", "eval_score_mean"):
        assert found[0][name] == found[1][name]


def test_labels_teach_what_is_acceptable(tiny_checkpoint, groups, make_trainer):
    # Within a group all labels are the same, so that ranking cannot teach them.
    lengths = [len(group.tokens.prompt) for group in groups]
    short = [length <= sorted(lengths)[len(groups) // 2 - 1] for length in lengths]
    assert 5 < sum(short) < len(groups) - 5
    labelled = [
        replace(group, labels=(label,) * len(group.tokens.responses))
        for group, label in zip(groups, short, strict=True)
    ]
    expected = torch.tensor([label for group in labelled for label in group.labels])
    agreement = []
    for weight in (0.0, 1.0):
        model, _ = reward_model.load(tiny_checkpoint)
        make_trainer(
            model, labelled, num_train_epochs=20, learning_rate=3e-3, auxiliary_weight=weight
        ).train()
        scores = score(model.eval(), [group.tokens for group in groups], pad_token_id=0)
        agreement.append(((scores > 0) == expected).double().mean().item())
    without, with_labels = agreement
    assert with_labels > without + 0.25
    assert with_labels > 0.8


def test_an_auxiliary_loss_without_any_label_is_refused(tiny_model, mixed, make_trainer):
    model, _ = tiny_model
    problem = f"auxiliary_weight=0.5 needs labelled responses, and none of the {len(mixed)} groups"
    with pytest.raises(ValueError, match=problem):
        make_trainer(model, mixed, auxiliary_weight=0.5).train()


def test_training_moves_every_parameter_and_learns(tiny_model, groups, make_trainer):
    model, _ = tiny_model
    before, loss = snapshot(model), mean_loss(model, groups)
    make_trainer(model, groups, num_train_epochs=6, learning_rate=3e-3).train()
    still = [name for name, value in snapshot(model).items() if torch.equal(value, before[name])]
    assert still == []
    assert mean_loss(model.eval(), groups) < 0.8 * loss


def test_frozen_parameters_stay(tiny_model, groups, make_trainer):
    model, _ = tiny_model
    model.model.requires_grad_(False)
    before = snapshot(model)
    make_trainer(model, groups, max_steps=2, learning_rate=0.01).train()
    moved = [
        name for name, value in snapshot(model).items() if not torch.equal(value, before[name])
    ]
    assert moved == ["score.weight"]


def test_a_trained_model_loads_with_stock_classes(tiny_checkpoint, groups, make_trainer, tmp_path):
    model, tokenizer = reward_model.load(tiny_checkpoint)
    trainer = make_trainer(model, groups, max_steps=3, learning_rate=0.01)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    tokenizer.save_pretrained(tmp_path / "saved")
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    tokens = [group.tokens for group in groups[:6]]
    ours = score(model, tokens, pad_token_id=0)
    theirs = [
        stock(torch.tensor([[*group.prompt, *response]])).logits.item()
        for group in tokens
        for response in group.responses
    ]
    # What training replaced, to compute in float64 throughout, is the stock class's again.
    assert ours.tolist() == pytest.approx(theirs, abs=1e-10)
    again = score(reward_model.load(tmp_path / "saved")[0], tokens, pad_token_id=0)
    assert ours.tolist() == pytest.approx(again.tolist(), abs=1e-12)


def test_evaluation_reports_the_ranking_loss(tiny_model, groups, make_trainer):
    model, _ = tiny_model
    # 21 groups of one pair in steps of 7, so that every batch weighs the same.
    trainer = make_trainer(model, groups, evaluation=groups[:21], groups_per_step=7)
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(mean_loss(model, groups[:21]), rel=1e-5)


@pytest.mark.parametrize("count", [14, 16, 17])
@pytest.mark.parametrize("kind", ["groups", "mixed"])
def test_the_evaluation_loss_is_the_mean_over_pairs_whatever_batches_hold(
    tiny_model, make_trainer, request, kind, count
):
    # Steps hold 7 groups, the last one 7, 2 or 3, of one or of three pairs each.
    model, _ = tiny_model
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(0))
    evaluation = [
        replace(group, pairs=tuple(replace(pair, weight=1.0) for pair in group.pairs))
        for group in request.getfixturevalue(kind)[:count]
    ]
    trainer = make_trainer(model, evaluation, evaluation=evaluation, groups_per_step=7)
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(mean_loss(model, evaluation), rel=1e-5)


def test_evaluation_computes_no_more_tokens_at_once_than_training(tiny_model, mixed, make_trainer):
    model, _ = tiny_model
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(0))
    expected = make_trainer(model, mixed, evaluation=mixed).evaluate()
    trainer = make_trainer(model, mixed, evaluation=mixed, max_tokens_per_device=150)
    # Several sets are evaluated by name.
    trainer.eval_dataset = {"held": trainer.eval_dataset}
    tokens = []
    model.model.register_forward_pre_hook(
        lambda _module, _inputs, named: tokens.append(named["input_ids"].numel()), with_kwargs=True
    )
    metrics = trainer.evaluate()
    assert len(tokens) > len(mixed) / 8
    # The longest group has 57 tokens.
    assert 57 <= max(tokens) <= 150
    for name in ("loss", "accuracy", "score_std"):
        assert metrics[f"eval_held_{name}"] == pytest.approx(expected[f"eval_{name}"], abs=1e-6)


@pytest.mark.parametrize("processes", [2, 5])
def test_what_processes_evaluate_is_every_pair_once(tiny_model, mixed, make_trainer, processes):
    # The last step has four groups, which leaves one of five processes without any.
    model, _ = tiny_model
    trainer = make_trainer(model, mixed, max_tokens_per_device=150)
    dataset = training_set(mixed[:20])
    expected = trainer.predict(dataset)
    passes, found = [], []
    for process in range(processes):
        place = SimpleNamespace(num_processes=processes, process_index=process)
        sampler = step_sampler(dataset, trainer.collator, trainer.config, place, shuffle=False)
        batches = EvaluationBatches(trainer.collator, 8)
        loaded = list(step_loader(dataset, sampler, batches, trainer.config))
        passes.append([len(inputs["micro_batches"]) for inputs in loaded])
        found.append([trainer.prediction_step(model, inputs, False)[1:] for inputs in loaded])
    assert passes == [passes[0]] * processes
    for place, wanted in enumerate((expected.predictions, expected.label_ids)):
        rows = [step[place].flatten(0, 1) for process in found for step in process]
        pairs = sorted(row for row in torch.cat(rows).tolist() if row[1] != NO_PAIR)
        expected_pairs = sorted(wanted[wanted[..., 1] != NO_PAIR].tolist())
        assert pairs == [pytest.approx(pair, abs=1e-6) for pair in expected_pairs]


def test_evaluation_without_data_is_refused(tiny_model, groups, make_trainer):
    with pytest.raises(ValueError, match="no data set to evaluate on"):
        make_trainer(tiny_model[0], groups).evaluate()


@pytest.mark.parametrize("count", [14, 16, 17])
def test_predictions_are_the_scores_of_every_pair(tiny_model, mixed, make_trainer, count):
    model, _ = tiny_model
    mixed = mixed[:count]
    predicted = make_trainer(model, mixed).predict(training_set(mixed))
    assert len(predicted.predictions) == len(mixed)
    found = predicted.predictions[predicted.label_ids[..., 1] != NO_PAIR]
    by_group = score(model, [group.tokens for group in mixed], pad_token_id=0).split(
        [len(group.tokens.responses) for group in mixed]
    )
    expected = [
        [scores[pair.winner].item(), scores[pair.loser].item()]
        for scores, group in zip(by_group, mixed, strict=True)
        for pair in group.pairs
    ]
    assert found.shape == (len(expected), 2)
    assert found == pytest.approx(torch.tensor(expected).numpy(), abs=1e-6)


def test_the_loss_calls_the_wrapped_model(tiny_model, groups, make_trainer, tmp_path):
    # Gradients of several devices are synchronised only if the wrapper itself is called.
    model, _ = tiny_model
    trainer = make_trainer(model, groups)
    batch = collate(groups[:4])
    expected = trainer.compute_loss(model, batch).item()
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
        calls = []
        wrapped.register_forward_hook(lambda *_: calls.append(1))
        assert trainer.compute_loss(wrapped, batch).item() == pytest.approx(expected, abs=1e-12)
        assert calls == [1]
    finally:
        torch.distributed.destroy_process_group()


def test_mixed_precision_reaches_the_body(tiny_checkpoint, groups, make_trainer):
    model, _ = reward_model.load(tiny_checkpoint, dtype=torch.float32)
    precisions = set()
    model.model.layers[0].mlp.gate_proj.register_forward_hook(
        # The check before training computes without autocast, in evaluation mode.
        lambda module, _inputs, output: precisions.add(output.dtype) if module.training else None
    )
    make_trainer(model, groups, max_steps=1, bf16=True).train()
    assert precisions == {torch.bfloat16}


@pytest.mark.parametrize(
    ("layout", "pack_length", "checked"),
    [
        (EXACT, None, True),
        (EXACT, 100, True),
        (SEPARATE, 100, True),
        (SEPARATE, None, False),
        (LAYOUTS["causal"], None, False),
    ],
)
def test_a_model_that_follows_no_mask_is_refused_before_training_where_rows_need_one(
    tiny_model, groups, tmp_path, layout, pack_length, checked
):
    model, _ = tiny_model
    # What an implementation does that knows none of them.
    dropped = {"attention_mask": None, "position_ids": None, "shared_prefix": None}
    model.model.register_forward_pre_hook(
        lambda _module, arguments, named: (arguments, named | dropped),
        with_kwargs=True,
    )
    trainer = RankingTrainer(
        model,
        RankingConfig(tmp_path, use_cpu=True, max_steps=1, report_to="none", save_strategy="no"),
        train_dataset=training_set(groups[:2]),
        data_collator=GroupCollator(0, layout, pack_length),
    )
    if checked:
        with pytest.raises(ValueError, match="does not keep responses in one row apart"):
            trainer.train()
    else:
        trainer.train()
        assert trainer.state.global_step == 1


def test_a_gradient_that_is_not_finite_is_refused_before_the_update(
    tiny_model, groups, make_trainer
):
    model, _ = tiny_model
    before = snapshot(model)
    score_head(model).weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(
        ValueError, match=r"the gradient of step 1 has the norm (nan|inf)"
    ) as refused:
        make_trainer(model, groups, **ONE_STEP).train()
    assert "training has diverged; lower learning_rate (0.5)" in str(refused.value)
    assert all(torch.equal(value, before[name]) for name, value in snapshot(model).items())


class Break(TrainerCallback):
    """Spoils a weight after the last update."""

    def on_step_end(self, args, state, control, model=None, **_):
        if state.global_step == 2:
            score_head(model).weight.data[0, 3] = torch.nan


@pytest.mark.parametrize("strategy", ["steps", "no"])
def test_weights_that_are_not_finite_after_the_last_step_are_refused_and_not_saved(
    tiny_model, groups, make_trainer, tmp_path, strategy
):
    settings = {"max_steps": 2, "save_strategy": strategy, "save_steps": 1}
    trainer = make_trainer(tiny_model[0], groups, **settings)
    trainer.add_callback(Break())
    expected = "weights are not finite after step 2, such as score.weight: training has diverged"
    with pytest.raises(ValueError, match=expected):
        trainer.train()
    found = [path.name for path in checkpoints_in(tmp_path / "run")]
    assert found == (["checkpoint-1"] if strategy == "steps" else [])


def test_an_evaluation_that_is_not_finite_is_refused(tiny_model, groups, make_trainer):
    score_head(tiny_model[0]).weight.data[:] = torch.inf
    with pytest.raises(ValueError, match="the loss on evaluation data is nan: training has div"):
        make_trainer(tiny_model[0], groups, evaluation=groups).evaluate()


def test_training_goes_on_while_a_checkpoint_is_read_again(
    tiny_model, groups, make_trainer, tmp_path, monkeypatch
):
    second_step = threading.Event()
    write_manifest, in_time = checkpoints.write_manifest, []

    def wait(folder):
        in_time.append(second_step.wait(timeout=20))
        write_manifest(folder)

    class Tell(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 2:
                second_step.set()

    monkeypatch.setattr(checkpoints, "write_manifest", wait)
    settings = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    trainer = make_trainer(tiny_model[0], groups, **settings)
    trainer.add_callback(Tell())
    trainer.train()
    assert in_time == [True] * 3
    folders = checkpoints_in(tmp_path / "run")
    assert [verify_manifest(folder) for folder in folders] == [None] * 3


def test_a_manifest_that_cannot_be_written_ends_training(
    tiny_model, groups, make_trainer, tmp_path, monkeypatch
):
    def fail(folder):
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoints, "write_manifest", fail)
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    with pytest.raises(OSError, match=r"checkpoint-1 could not be written \(no space.*make room"):
        make_trainer(tiny_model[0], groups, **settings).train()
    assert not checkpoints_in(tmp_path / "run")


@pytest.mark.parametrize("should_save", [True, False])
def test_a_checkpoint_gets_its_manifest_once_all_processes_have_written_theirs(
    tiny_model, groups, make_trainer, tmp_path, monkeypatch, should_save
):
    folder = tmp_path / "run" / "checkpoint-1"
    trainer = make_trainer(tiny_model[0], groups, max_steps=1, save_strategy="steps", save_steps=1)

    waits = []

    def wait():
        waits.append(folder.exists())
        assert not (folder / MANIFEST).exists()
        if folder.exists():
            (folder / "rng_state_1.pth").write_bytes(b"written by another process")

    monkeypatch.setattr(trainer.accelerator, "wait_for_everyone", wait)
    # One process writes it for all.
    monkeypatch.setattr(RankingConfig, "should_save", should_save)
    trainer.train()
    # Before any process writes, and once all have written.
    assert waits[:2] == [False, True]
    assert (folder / MANIFEST).exists() == should_save
    if should_save:
        assert verify_manifest(folder) is None
        assert "rng_state_1.pth" in json.loads((folder / MANIFEST).read_text())


def test_compilation_changes_no_weight(tiny_checkpoint, mixed, make_trainer, tmp_path):
    # The backend runs what was captured as it is, so that the test needs no compiler.
    trained, captured = [], []
    for settings in ({}, {"torch_compile": True, "torch_compile_backend": "eager"}):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        model, tokenizer = reward_model.load(tiny_checkpoint)
        trainer = make_trainer(model, mixed, max_steps=1, **settings)
        trainer.train()
        captured.append(torch._dynamo.utils.counters["stats"]["calls_captured"])
        unwrapped = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        saving.save(saving.finish(unwrapped), tokenizer, tmp_path / str(len(trained)))
        trained.append(snapshot(reward_model.load(tmp_path / str(len(trained)))[0]))
    assert captured[0] == 0 < captured[1]
    for name, weight in trained[0].items():
        torch.testing.assert_close(trained[1][name], weight, rtol=0, atol=1e-9)


def test_workers_lay_out_the_same_batches(tiny_model, mixed, make_trainer):
    model, _ = tiny_model
    expected = make_trainer(model, mixed, evaluation=mixed).evaluate()
    found = make_trainer(
        model,
        mixed,
        evaluation=mixed,
        dataloader_num_workers=1,
        dataloader_multiprocessing_context="fork",
        dataloader_persistent_workers=True,
    ).evaluate()
    assert found["eval_loss"] == pytest.approx(expected["eval_loss"], abs=1e-12)


def test_activation_checkpointing_changes_no_weight(tiny_checkpoint, mixed, make_trainer):
    found = []
    for activation_checkpointing in (False, True):
        model, _ = reward_model.load(tiny_checkpoint)
        trainer = make_trainer(
            model, mixed, max_steps=3, activation_checkpointing=activation_checkpointing
        )
        trainer.train()
        assert model.is_activation_checkpointing == activation_checkpointing
        found.append(snapshot(model))
    for name, weight in found[0].items():
        torch.testing.assert_close(found[1][name], weight, rtol=0, atol=1e-12)
