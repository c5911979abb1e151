"""One training run: what it moves, what it repeats, and that recipe and layout reach it."""

import gc
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from posttrain.errors import UserError
from posttrain.evidence import records
from posttrain.models import reward_model
from posttrain.models.architecture import freeze_below
from posttrain.rows.layout import LAYOUTS, Layout
from posttrain.studies.common import training
from posttrain.studies.common.training import Recipe, memoize, train, working_folder
from posttrain.training.collator import TrainingGroup

RECIPE = Recipe(batch_size=4, epochs=2)
CAUSAL = Layout("single", "causal", "running", "ranked")


@pytest.fixture(scope="module", autouse=True)
def quick_collections():
    """Every training ends with a garbage collection, which need not look at imported modules."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def groups(tiny_groups):
    """Six pairs and two triples."""
    by_size = [[g for g in tiny_groups if len(g.responses) == count] for count in (2, 3)]
    return [TrainingGroup.with_all_pairs(group) for group in by_size[0][:6] + by_size[1][:2]]


@pytest.fixture(scope="module")
def trained(tiny_checkpoint, groups):
    """Weights after training, by whatever differs from an exact row with seed 1."""
    found = {}

    def weights(layout=LAYOUTS["exact"], *, seed=1, rate=1e-3, recipe=RECIPE):
        key = (layout, seed, rate, recipe)
        if key not in found:
            model, _ = train(tiny_checkpoint, groups, layout, recipe, learning_rate=rate, seed=seed)
            found[key] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        return found[key]

    return weights


def apart(one, other):
    """Largest difference of two sets of weights."""
    assert list(one) == list(other)
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def trainable(model):
    """Names of trainable parts: embed_tokens, layers.N, norm and score."""
    names = (n for n, parameter in model.named_parameters() if parameter.requires_grad)
    parts = [name.removeprefix("model.").split(".") for name in names]
    return {".".join(part[:2]) if part[0] == "layers" else part[0] for part in parts}


@pytest.mark.parametrize(
    ("top_layers", "expected"),
    [
        (0, {"embed_tokens", "layers.0", "layers.1", "norm", "score"}),
        (1, {"layers.1", "norm", "score"}),
        (2, {"layers.0", "layers.1", "norm", "score"}),
    ],
)
def test_freezing_leaves_the_last_layers_the_final_norm_and_the_head(
    tiny_model, top_layers, expected
):
    model, _ = tiny_model
    freeze_below(model, top_layers)
    assert trainable(model) == expected
    for module in (*model.model.layers, model.model.embed_tokens):
        assert len({parameter.requires_grad for parameter in module.parameters()}) == 1


def test_more_layers_than_there_are_cannot_be_trained(tiny_checkpoint, tiny_model, groups):
    model, _ = tiny_model
    with pytest.raises(ValueError, match="top_layers=3, but the model has 2 layers"):
        freeze_below(model, 3)
    assert len(trainable(model)) == 5
    with pytest.raises(ValueError, match="top_layers=3, but the model has 2 layers"):
        train(
            tiny_checkpoint, groups, CAUSAL, Recipe(top_layers=3), learning_rate=1e-3, seed=0
        )  # fmt: skip


@pytest.mark.parametrize("top_layers", [0, 1])
def test_training_moves_what_is_trainable_and_nothing_else(tiny_checkpoint, trained, top_layers):
    before, _ = reward_model.load(tiny_checkpoint, seed=1)
    after = trained(recipe=Recipe(batch_size=4, top_layers=top_layers))
    freeze_below(before, top_layers)
    moved = {
        name: bool((after[name] != parameter).any())
        for name, parameter in before.named_parameters()
    }
    assert moved == {name: p.requires_grad for name, p in before.named_parameters()}
    assert all(moved.values()) == (top_layers == 0)


def test_the_same_seed_gives_the_same_weights(tiny_checkpoint, groups, trained):
    # The order of responses is drawn too, whatever was drawn before.
    layout = LAYOUTS["causal"]
    first = trained(layout)
    torch.manual_seed(99)
    again, pad_token_id = train(tiny_checkpoint, groups, layout, RECIPE, learning_rate=1e-3, seed=1)
    assert apart(first, again.state_dict()) == 0
    assert not again.training
    _, tokenizer = reward_model.load(tiny_checkpoint)
    assert pad_token_id == tokenizer.pad_token_id


def test_every_training_says_that_it_ended(tiny_checkpoint, groups, caplog):
    with caplog.at_level("INFO", logger="posttrain"):
        train(tiny_checkpoint, groups, LAYOUTS["exact"], RECIPE, learning_rate=1e-3, seed=1)
    (line,) = caplog.messages
    assert line.startswith("trained on 8 groups in rows Layout(rows='single', attention='isolated'")
    assert ", learning rate 0.001, seed 1: " in line


def test_another_seed_gives_another_head_and_other_weights(tiny_checkpoint, trained):
    heads = [reward_model.load(tiny_checkpoint, seed=seed)[0].score.weight for seed in (1, 2)]
    assert (heads[0] != heads[1]).all()
    one, other = trained(seed=1), trained(seed=2)
    for name, weights in one.items():
        assert (weights != other[name]).any(), name
    # Two short epochs move the head much less than the seeds are apart.
    for head, weights in zip(heads, (one, other), strict=True):
        assert (weights["score.weight"] - head).norm() < (heads[0] - heads[1]).norm() / 2


def test_another_learning_rate_gives_other_weights(trained):
    assert apart(trained(), trained(rate=2e-3)) > 1e-5


def test_the_layout_reaches_the_collator(trained):
    separate = trained(LAYOUTS["separate"])
    assert apart(separate, trained(LAYOUTS["exact"])) < 1e-9
    causal = trained(CAUSAL)
    assert apart(separate, causal) > 1e-4
    assert apart(causal, trained(LAYOUTS["causal"])) > 1e-4
    assert apart(causal, trained(Layout("single", "causal", "restarting"))) > 1e-4


def test_training_learns_the_ranking(tiny_checkpoint, groups):
    model, pad_token_id = train(
        tiny_checkpoint,
        groups,
        LAYOUTS["exact"],
        Recipe(batch_size=4, epochs=20),
        learning_rate=1e-2,
        seed=0,
    )
    for group in groups:
        scores = reward_model.score(model, [group.tokens], pad_token_id=pad_token_id)
        assert (scores[:-1] > scores[1:] + 1).all()


@pytest.fixture
def called(monkeypatch):
    """What the trainer is made with; nothing is trained."""
    found = {}

    class Trainer:
        def __init__(self, model, arguments, *, train_dataset, data_collator):
            found.update(model=model, items=train_dataset, collator=data_collator)

        def remove_callback(self, callback):
            found["without"] = callback.__name__

        def train(self):
            found["trained"] = True

    def arguments(folder, **options):
        found["options"] = options
        return SimpleNamespace()

    monkeypatch.setattr(training, "RankingTrainer", Trainer)
    monkeypatch.setattr(training, "RankingConfig", arguments)
    return found


@pytest.mark.parametrize(("gpu", "bf16"), [(False, False), (False, True), (True, False)])
def test_the_recipe_reaches_the_trainer(called, monkeypatch, tiny_checkpoint, groups, gpu, bf16):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    recipe = Recipe(batch_size=5, epochs=7, top_layers=1, gpu=gpu, bf16=bf16)
    model, pad_token_id = train(
        tiny_checkpoint, groups, LAYOUTS["causal"], recipe, learning_rate=0.125, seed=11
    )
    assert called["trained"]
    assert called["model"] is model
    assert trainable(model) == {"layers.1", "norm", "score"}
    assert not model.training
    initial, _ = reward_model.load(tiny_checkpoint, seed=11)
    assert torch.equal(model.score.weight, initial.score.weight)
    expected = {
        "groups_per_step": 5,
        "num_train_epochs": 7,
        "learning_rate": 0.125,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 5,
        "seed": 11,
        "use_cpu": not gpu,
        "bf16": bf16,
        "max_tokens_per_device": 4096 if gpu else 1024,
        "save_strategy": "no",
    }
    assert {name: called["options"][name] for name in expected} == expected
    collator = called["collator"]
    assert (collator.pad_token_id, collator.layout, collator.pack_length) == (
        pad_token_id, LAYOUTS["causal"], None,
    )  # fmt: skip
    assert called["items"]["prompt"] == [list(group.tokens.prompt) for group in groups]
    assert [len(pairs) for pairs in called["items"]["winners"]] == [1] * 6 + [3] * 2


def test_a_gpu_that_is_not_there_is_not_replaced_by_the_cpu(
    called, monkeypatch, tiny_checkpoint, groups
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="gpu is set, but torch finds no GPU"):
        train(
            tiny_checkpoint, groups, LAYOUTS["exact"], Recipe(gpu=True), learning_rate=0.1, seed=1
        )
    assert not called


def test_objective_and_steps_reach_the_trainer(called, tiny_checkpoint, groups):
    layout = LAYOUTS["exact"]
    train(tiny_checkpoint, groups, layout, RECIPE, learning_rate=0.1, seed=1)
    assert (called["options"]["loss_type"], called["options"]["max_steps"]) == ("pairs", -1)
    more = {"loss_type": "plackett-luce", "steps": 9}
    train(tiny_checkpoint, groups, layout, RECIPE, learning_rate=0.1, seed=1, **more)
    assert (called["options"]["loss_type"], called["options"]["max_steps"]) == ("plackett-luce", 9)


def test_the_weight_of_the_auxiliary_loss_reaches_the_trainer(called, tiny_checkpoint, groups):
    layout = LAYOUTS["exact"]
    train(tiny_checkpoint, groups, layout, RECIPE, learning_rate=0.1, seed=1)
    assert called["options"]["auxiliary_weight"] == 0
    train(tiny_checkpoint, groups, layout, RECIPE, learning_rate=0.1, seed=1, auxiliary_weight=0.25)
    assert called["options"]["auxiliary_weight"] == 0.25


def test_labels_train_another_model_where_they_have_a_weight(tiny_checkpoint, groups, trained):
    labelled = [replace(g, labels=(True,) * len(g.tokens.responses)) for g in groups]
    means = []
    for weight in (0.0, 3.0):
        model, pad_token_id = train(
            tiny_checkpoint, labelled, LAYOUTS["exact"], RECIPE, learning_rate=1e-2, seed=1,
            auxiliary_weight=weight,
        )  # fmt: skip
        tokens = [group.tokens for group in groups]
        means.append(float(reward_model.score(model, tokens, pad_token_id=pad_token_id).mean()))
    # All responses are acceptable, so all scores are to be above zero.
    assert means[1] > max(0.0, means[0] + 0.1)


def test_everything_is_trained_on_a_cpu_unless_told_otherwise():
    assert Recipe() == Recipe(batch_size=32, epochs=1, top_layers=0, gpu=False, bf16=False)


@pytest.mark.parametrize("bf16", [False, True])
def test_training_in_half_precision_keeps_weights_and_scores_and_goes_on_in_scoring(
    monkeypatch, tiny_checkpoint, groups, bf16
):
    load = reward_model.load
    # Autocast leaves double precision alone, which is what the tiny Llama computes in.
    monkeypatch.setattr(
        training.reward_model,
        "load",
        lambda checkpoint, seed: load(checkpoint, seed=seed, dtype=torch.float32),
    )
    recipe = Recipe(batch_size=4, bf16=bf16)
    model, pad_token_id = train(
        tiny_checkpoint, groups, LAYOUTS["exact"], recipe, learning_rate=1e-3, seed=1
    )
    computed = set()
    model.model.layers[0].mlp.gate_proj.register_forward_hook(
        lambda _module, _inputs, output: computed.add(output.dtype)
    )
    tokens = [group.tokens for group in groups]
    scores = reward_model.score(model, tokens, pad_token_id=pad_token_id, layout=LAYOUTS["exact"])
    assert computed == {torch.bfloat16 if bf16 else torch.float32}
    assert scores.dtype == torch.float32
    # Scores that a head in half precision gave would survive the round trip.
    assert not torch.equal(scores, scores.bfloat16().float())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_finished_runs_serve_however_many_are_trained_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_commit", lambda: "0123456789ab")
    done = []

    def double(number):
        done.append(number)
        return 2 * number

    for processes in (8, 4, 1):
        settings = {"epochs": 1, "processes": processes}
        kept = memoize(double, tmp_path, settings=settings, data={}, ignore=[])
        assert kept(21) == 42
    assert done == [21]


def test_a_working_folder_is_of_one_code_data_and_settings_or_vanishes(tmp_path, monkeypatch):
    def folder(commit="abc", kept=tmp_path, **settings):
        monkeypatch.setattr(records, "machine", lambda: {"commit": commit})
        with working_folder(kept, settings=settings, data={"clusters": 1}) as found:
            found.mkdir(exist_ok=True)
            return found

    first = folder(seeds=1, processes=1)
    assert first.parent == tmp_path
    assert folder(seeds=1, processes=2) == first
    assert folder(seeds=2, processes=1) != first
    assert folder(commit="def", seeds=1, processes=1) != first
    with pytest.raises(UserError, match="not committed"):
        folder(commit="abc+", seeds=1)
    assert not folder(commit="abc+", kept=None).exists()
