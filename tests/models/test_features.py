"""Linear heads against general optimisers, and features against the whole model."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from transformers import AutoModelForCausalLM

from posttrain.errors import UserError
from posttrain.models import features as feature_module
from posttrain.models.features import FeatureSettings, features
from posttrain.models.heads import _members, _total, fit_heads
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.studies.margin.outcome import ARMS

SHAPES = {"more pairs": (60, 6), "more features": (12, 30)}
TIGHT = {"tolerance": 1e-11, "max_iterations": 200_000}


def head_losses(heads, differences, *, margins, weights, penalties, choices=None):
    """The objective of :func:`fit_heads` at the given heads, shape ``[fits]``."""
    single = torch.arange(len(differences)) if choices is None else choices
    members = _members(single)
    logits = (margins - heads @ differences.T)[:, members].masked_fill(members < 0, -torch.inf)
    losses = torch.cat([logits.new_zeros(*logits.shape[:2], 1), logits], dim=2).logsumexp(dim=2)
    weights = (weights / _total(weights, members))[:, members[:, 0]]
    return (weights * losses).sum(dim=1) + penalties / 2 * (heads**2).sum(dim=1)


def problem(pairs, width, seed=0):
    """Differences of the winner's and the loser's features, and strengths that follow them."""
    random = np.random.default_rng(seed)
    # Features of very different sizes, as hidden states have them.
    differences = random.normal(size=(pairs, width)) * np.geomspace(0.1, 3, width) + 0.1
    strengths = random.integers(1, 5, pairs)
    strengths[:2] = 4
    return torch.from_numpy(differences), strengths.tolist()


def objective(head, differences, margins, weights, penalty):
    """The loss of one head and its gradient, in numpy."""
    slack = differences @ head - margins
    share = weights / weights.sum()
    loss = (share * np.logaddexp(0, -slack)).sum() + penalty / 2 * head @ head
    return loss, -(share * expit(-slack)) @ differences + penalty * head


def fitted_by_scipy(differences, margins, weights, penalty):
    found = minimize(
        objective,
        np.zeros(differences.shape[1]),
        args=(differences.numpy(), margins.numpy(), weights.numpy(), penalty),
        method="L-BFGS-B",
        jac=True,
        options={"maxiter": 10_000, "ftol": 1e-16, "gtol": 1e-10, "maxcor": 40},
    )
    return found.x, found.fun


def heads_of(differences, margins, weights, penalties, **settings):
    return fit_heads(
        differences,
        margins=margins,
        weights=weights,
        penalties=torch.tensor(penalties, dtype=differences.dtype),
        **TIGHT | settings,
    )


@pytest.fixture(params=SHAPES, ids=lambda name: name.replace(" ", "-"))
def batch(request):
    """Every arm with every penalty on one set of pairs."""
    differences, strengths = problem(*SHAPES[request.param])
    margins = torch.stack([arm.margins(strengths) for arm in ARMS])
    weights = torch.stack([arm.weights(strengths) for arm in ARMS])
    penalties = [1e-3, 0.1, 10.0]
    return (
        differences,
        margins.repeat_interleave(len(penalties), dim=0),
        weights.repeat_interleave(len(penalties), dim=0),
        penalties * len(ARMS),
    )


def test_heads_of_all_arms_and_penalties_are_those_of_a_general_optimiser(batch):
    differences, margins, weights, penalties = batch
    fits = heads_of(*batch)
    assert fits.converged.all()
    assert (fits.gradient_norms <= 1e-11).all()
    losses = head_losses(
        fits.heads,
        differences,
        margins=margins,
        weights=weights,
        penalties=torch.tensor(penalties, dtype=torch.float64),
    )
    for place, head in enumerate(fits.heads):
        expected, loss = fitted_by_scipy(
            differences, margins[place], weights[place], penalties[place]
        )
        size = np.abs(expected).max()
        assert size > 1e-4
        np.testing.assert_allclose(head.numpy(), expected, rtol=0, atol=2e-4 * size)
        # The general optimiser comes close; it must not come lower.
        assert losses[place].item() == pytest.approx(loss, abs=1e-9)
        assert losses[place].item() <= loss + 1e-13
        gradient = objective(
            head.numpy(), differences.numpy(), margins[place].numpy(),
            weights[place].numpy(), penalties[place],
        )[1]  # fmt: skip
        assert np.abs(gradient).max() < 1e-10


def choice_loss(head, differences, weights, penalty, choices):
    """The loss of one head, choice by choice in torch."""
    terms, total = 0.0, 0.0
    for number in set(choices):
        chosen = [place for place, found in enumerate(choices) if found == number]
        lost = torch.cat([torch.zeros(1), -(differences[chosen] @ head)])
        terms = terms + weights[chosen[0]] * lost.logsumexp(0)
        total = total + weights[chosen[0]]
    return terms / total + penalty / 2 * (head**2).sum()


@pytest.mark.parametrize("name", SHAPES)
def test_choices_among_several_are_those_of_a_general_optimiser(name):
    differences, _ = problem(*SHAPES[name])
    # Sets of three, two and one pairs, not side by side.
    choices = [place % (len(differences) // 2 + 1) % 7 for place in range(len(differences))]
    assert len(set(map(choices.count, choices))) > 1
    weights = torch.tensor([1.0 + (choice % 3) for choice in choices], dtype=torch.float64)
    weights[[choice == 2 for choice in choices]] = 0.0
    penalties = [0.01, 1.0]
    fits = heads_of(
        differences,
        torch.zeros(2, len(differences), dtype=torch.float64),
        weights.expand(2, -1),
        penalties,
        choices=torch.tensor(choices),
    )
    assert fits.converged.all()
    losses = head_losses(
        fits.heads,
        differences,
        margins=torch.zeros(2, len(differences)),
        weights=weights.expand(2, -1),
        penalties=torch.tensor(penalties, dtype=torch.float64),
        choices=torch.tensor(choices),
    )
    for head, loss, penalty in zip(fits.heads, losses, penalties, strict=True):
        variable = head.clone().requires_grad_()
        expected = choice_loss(variable, differences, weights, penalty, choices)
        assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
        expected.backward()
        # The loss is convex, so a head without a gradient is the best there is.
        assert variable.grad.abs().max() < 1e-9
        assert head.abs().max() > 1e-3


def test_choices_of_one_are_pairs(batch):
    single = torch.arange(len(batch[0])).flip(0)
    expected = heads_of(*batch).heads
    np.testing.assert_allclose(
        heads_of(*batch, choices=single).heads, expected, rtol=1e-6, atol=1e-7
    )


def test_a_choice_with_two_weights_is_refused():
    differences, _ = problem(4, 2)
    weights = torch.tensor([[1.0, 1.0, 2.0, 1.0]], dtype=torch.float64)
    margins = torch.zeros(1, 4, dtype=torch.float64)
    heads_of(differences, margins, weights, [1.0], choices=torch.tensor([0, 0, 1, 0]))
    with pytest.raises(ValueError, match="pairs of one choice must have one weight"):
        heads_of(differences, margins, weights, [1.0], choices=torch.tensor([0, 0, 0, 1]))
    with pytest.raises(ValueError, match=r"expected choices of shape \[4\] \(pairs\), got \[3\]"):
        heads_of(differences, margins, weights, [1.0], choices=torch.tensor([0, 0, 1]))


def test_margins_weights_and_penalties_matter(batch):
    heads = heads_of(*batch).heads
    for one in range(len(heads)):
        for other in range(one):
            assert (heads[one] - heads[other]).abs().max() > 1e-5


def test_fits_in_a_batch_are_those_made_alone(batch):
    differences, margins, weights, penalties = batch
    together = heads_of(*batch)
    for place, penalty in enumerate(penalties):
        one = slice(place, place + 1)
        alone = heads_of(differences, margins[one], weights[one], [penalty])
        np.testing.assert_allclose(together.heads[one], alone.heads, rtol=1e-7, atol=1e-8)


def test_a_weight_of_zero_leaves_the_pair_out(batch):
    differences, margins, weights, penalties = batch
    kept = torch.ones(len(differences), dtype=torch.bool)
    kept[2::3] = False
    masked = heads_of(differences, margins, weights * kept, penalties).heads
    fewer = heads_of(differences[kept], margins[:, kept], weights[:, kept], penalties).heads
    np.testing.assert_allclose(masked, fewer, rtol=1e-6, atol=1e-7)


def test_a_weight_of_two_counts_like_the_pair_twice_and_scale_is_nothing():
    differences, _ = problem(20, 4)
    weights = torch.ones(1, 20, dtype=torch.float64)
    weights[0, :5] = 2
    zeros = torch.zeros(1, 25, dtype=torch.float64)
    weighted = heads_of(differences, zeros[:, :20], weights, [0.1]).heads
    scaled = heads_of(differences, zeros[:, :20], 7 * weights, [0.1]).heads
    repeated = heads_of(torch.cat([differences, differences[:5]]), zeros, zeros + 1, [0.1]).heads
    np.testing.assert_allclose(weighted, repeated, atol=1e-9)
    np.testing.assert_allclose(weighted, scaled, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_without_margins_a_head_is_logistic_regression_on_symmetrised_pairs(shape):
    differences, _ = problem(*shape)
    zeros = torch.zeros(1, len(differences), dtype=torch.float64)
    for penalty in (0.01, 1.0):
        head = heads_of(differences, zeros, zeros + 1, [penalty]).heads[0]
        both = np.concatenate([differences, -differences])
        labels = np.repeat([1, 0], len(differences))
        # Its loss is C times the sum over both copies plus half of the squared norm.
        strength = 1 / (2 * len(differences) * penalty)
        regression = LogisticRegression(
            C=strength, fit_intercept=False, tol=1e-10, max_iter=10_000
        ).fit(both, labels)
        np.testing.assert_allclose(head, regression.coef_[0], atol=1e-6)


def test_features_that_repeat_one_another_share_a_head():
    differences, _ = problem(40, 3)
    doubled = torch.cat([differences, differences], dim=1)
    zeros = torch.zeros(1, 40, dtype=torch.float64)
    head = heads_of(doubled, zeros, zeros + 1, [0.1]).heads[0]
    np.testing.assert_allclose(head[:3], head[3:], atol=1e-10)
    alone = heads_of(differences, zeros, zeros + 1, [0.05]).heads[0]
    np.testing.assert_allclose(2 * head[:3], alone, atol=1e-8)


def test_single_precision_comes_close_and_stays_single(batch):
    differences, margins, weights, penalties = batch
    exact = heads_of(*batch).heads
    rounded = heads_of(
        differences.float(), margins.float(), weights.float(), penalties, tolerance=1e-5
    )
    assert rounded.heads.dtype == torch.float32
    assert rounded.converged.all()
    strong = torch.tensor(penalties) >= 0.1
    np.testing.assert_allclose(rounded.heads[strong], exact[strong], atol=1e-3)


def test_an_unfinished_fit_says_so():
    differences, _ = problem(60, 6)
    zeros = torch.zeros(2, 60, dtype=torch.float64)
    fits = heads_of(differences, zeros, zeros + 1, [1e-6, 1e3], max_iterations=30)
    assert fits.converged.tolist() == [False, True]
    assert fits.iterations == 30
    assert fits.gradient_norms[0] > 1e-11 >= fits.gradient_norms[1]


def test_head_losses_by_hand():
    losses = head_losses(
        torch.tensor([[1.0, 2.0]]),
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        margins=torch.tensor([[0.5, 0.0]]),
        weights=torch.tensor([[1.0, 3.0]]),
        penalties=torch.tensor([0.4]),
    )
    expected = np.log1p(np.exp(-0.5)) / 4 + 3 * np.log1p(np.exp(-2)) / 4 + 0.2 * 5
    assert losses.tolist() == pytest.approx([expected])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"margins": torch.zeros(2, 4)}, r"expected margins and weights of shape \[2, 5\]"),
        ({"weights": torch.ones(5)}, r"expected margins and weights of shape \[2, 5\]"),
        ({"penalties": torch.tensor([0.1, 0.0])}, "penalties must be positive"),
        ({"penalties": torch.tensor([0.1, float("nan")])}, "penalties must be positive"),
        ({"weights": torch.tensor([[1.0] * 5, [0.0] * 5])}, "each fit needs one that is positive"),
        ({"weights": torch.tensor([[1.0] * 5, [2.0] * 4 + [-1.0]])}, "must not be negative"),
    ],
)
def test_impossible_fits_are_refused(change, message):
    arguments = {
        "margins": torch.zeros(2, 5),
        "weights": torch.ones(2, 5),
        "penalties": torch.tensor([0.1, 0.2]),
    }
    with pytest.raises(ValueError, match=message) as refused:
        fit_heads(torch.ones(5, 3), **arguments | change)
    # Penalties are a setting of studies; the rest is for whoever calls this to get right.
    assert isinstance(refused.value, UserError) == ("penalties" in change)


@pytest.fixture
def cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """Counts how often the backbone is loaded."""
    loaded = []
    load = feature_module.AutoModel.from_pretrained
    monkeypatch.setattr(
        feature_module.AutoModel,
        "from_pretrained",
        lambda *a, **k: loaded.append(a) or load(*a, **k),
    )
    return loaded


@pytest.fixture
def rows(tiny_groups):
    """Each response by itself, a group of one."""
    return [
        TokenizedGroup(group.prompt, (response,))
        for group in tiny_groups
        for response in group.responses
    ]


def pooled_by_hand(checkpoint, row, layer, pooling):
    """One row alone through the whole language model."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    captured = []
    # The last of ``hidden_states`` is normalised, so the layer's own output is caught.
    model.model.layers[layer - 1].register_forward_hook(
        lambda _module, _inputs, output: captured.append(output)
    )
    with torch.no_grad():
        ids = torch.tensor([[*row.prompt, *row.responses[0]]])
        states = model(ids, output_hidden_states=True).hidden_states
    hidden = captured[0][0]
    if layer < len(model.model.layers):
        assert torch.equal(hidden, states[layer][0])
    if pooling == "last":
        return hidden[-1]
    return hidden[len(row.prompt) if pooling == "response mean" else 0 :].mean(dim=0)


@pytest.mark.parametrize("pooling", ["mean", "response mean", "last"])
@pytest.mark.parametrize("layer", [1, 2])
def test_features_are_those_of_the_whole_model(tiny_checkpoint, cache_folder, rows, layer, pooling):
    found = features(tiny_checkpoint, rows, FeatureSettings(layer, pooling))
    assert found.shape == (len(rows), 32)
    assert found.dtype == torch.float32
    for row, vector in list(zip(rows, found, strict=True))[::7]:
        expected = pooled_by_hand(tiny_checkpoint, row, layer, pooling).float()
        torch.testing.assert_close(vector, expected, rtol=1e-6, atol=1e-6)


def test_layers_and_poolings_differ(tiny_checkpoint, cache_folder, rows):
    found = [
        features(tiny_checkpoint, rows, FeatureSettings(layer, pooling))
        for layer in (1, 2)
        for pooling in ("mean", "response mean", "last")
    ]
    for one in range(6):
        for other in range(one):
            assert (found[one] - found[other]).abs().mean() > 0.01


@pytest.mark.parametrize("pooling", ["mean", "response mean", "last"])
def test_padding_does_not_leak(tiny_checkpoint, monkeypatch, tmp_path, rows, pooling):
    found = []
    for batch_tokens in (1, 300, 100_000):
        monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / str(batch_tokens)))
        settings = FeatureSettings(2, pooling)
        found.append(features(tiny_checkpoint, rows, settings, batch_tokens=batch_tokens))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-6)


def test_a_batch_holds_no_more_than_the_tokens_allowed(
    tiny_checkpoint, cache_folder, monkeypatch, rows
):
    sizes, pool = [], feature_module._pool

    def watch(model, batch, pooling):
        sizes.append(len(batch) * max(row.total for row in batch))
        return pool(model, batch, pooling)

    monkeypatch.setattr(feature_module, "_pool", watch)
    features(tiny_checkpoint, rows, FeatureSettings(1), batch_tokens=200)
    assert max(sizes) <= 200
    assert len(sizes) < len(rows) / 2


def test_features_come_in_the_order_of_the_rows_duplicates_included(
    tiny_checkpoint, cache_folder, rows
):
    settings = FeatureSettings(2, "response mean")
    found = features(tiny_checkpoint, rows, settings)
    order = [5, 0, 5, 11, 3, 3]
    again = features(tiny_checkpoint, [rows[place] for place in order], settings)
    torch.testing.assert_close(again, found[order], rtol=0, atol=1e-6)
    assert torch.equal(again[0], again[2])
    assert not torch.equal(again[0], again[1])


@pytest.mark.parametrize("pooling", ["mean", "response mean", "last"])
def test_features_of_groups_come_by_group_and_then_by_rank(
    tiny_checkpoint, cache_folder, calls, tiny_groups, rows, pooling
):
    assert {len(group.responses) for group in tiny_groups} == {2, 3}
    settings = FeatureSettings(2, pooling)
    found = features(tiny_checkpoint, tiny_groups, settings)
    assert found.shape == (len(rows), 32)
    assert found.unique(dim=0).shape == found.shape
    for row, vector in list(zip(rows, found, strict=True))[:10]:
        expected = pooled_by_hand(tiny_checkpoint, row, 2, pooling).float()
        torch.testing.assert_close(vector, expected, rtol=1e-6, atol=1e-6)
    # The same separate rows, whatever they are grouped in: nothing is computed anew.
    assert torch.equal(features(tiny_checkpoint, rows, settings), found)
    backwards = features(tiny_checkpoint, tiny_groups[::-1], settings)
    parts = found.split([len(group.responses) for group in tiny_groups])
    assert torch.equal(backwards, torch.cat(parts[::-1]))
    assert len(calls) == 1


def test_responses_to_one_prompt_share_a_row_up_to_its_limit(
    tiny_checkpoint, cache_folder, monkeypatch
):
    prompt, other = tuple(range(6, 26)), tuple(range(30, 40))
    responses = [(k, k + 1, k + 2) for k in range(40, 47)]
    groups = [
        TokenizedGroup(prompt, (responses[0], responses[1])),
        TokenizedGroup(other, (responses[0],)),
        TokenizedGroup(prompt, (responses[1], responses[2])),
        TokenizedGroup(prompt, tuple(responses[3:])),
    ]
    seen, pool = [], feature_module._pool

    def watch(model, rows, pooling):
        seen.extend((row.prompt, row.responses) for row in rows)
        return pool(model, rows, pooling)

    monkeypatch.setattr(feature_module, "_pool", watch)
    monkeypatch.setattr(feature_module, "ROW_TOKENS", 32)
    found = features(tiny_checkpoint, groups, FeatureSettings(2))
    # Four responses of three tokens fit beside the prompt's twenty; each is computed once.
    assert seen == [
        (other, (responses[0],)),
        (prompt, tuple(responses[4:])),
        (prompt, tuple(responses[:4])),
    ]
    alone = [TokenizedGroup(g.prompt, (r,)) for g in groups for r in g.responses]
    for row, vector in zip(alone, found, strict=True):
        expected = pooled_by_hand(tiny_checkpoint, row, 2, "mean").float()
        torch.testing.assert_close(vector, expected, rtol=1e-6, atol=1e-6)


def test_rows_that_differ_in_their_prompt_only_by_its_end_are_told_apart(
    tiny_checkpoint, cache_folder
):
    rows = [TokenizedGroup((6,), ((7, 8, 9),)), TokenizedGroup((6, 7, 8), ((9,),))]
    whole = features(tiny_checkpoint, rows, FeatureSettings(2, "mean"))
    parts = features(tiny_checkpoint, rows, FeatureSettings(2, "response mean"))
    assert torch.equal(whole[0], whole[1])
    assert (parts[0] - parts[1]).abs().max() > 0.01


def test_a_cached_result_is_the_same_and_needs_no_model(tiny_checkpoint, cache_folder, calls, rows):
    first = features(tiny_checkpoint, rows, FeatureSettings(1))
    assert len(calls) == 1
    assert torch.equal(features(tiny_checkpoint, rows, FeatureSettings(1)), first)
    # Order and duplicates are no part of what is cached.
    backwards = features(tiny_checkpoint, rows[::-1] + rows[:1], FeatureSettings(1))
    assert torch.equal(backwards[:-1], first.flip(0))
    assert len(calls) == 1
    for changed in (FeatureSettings(2), FeatureSettings(1, "last")):
        features(tiny_checkpoint, rows, changed)
    features(tiny_checkpoint, rows[:-1], FeatureSettings(1))
    assert len(calls) == 4
    assert len(list((cache_folder / "features").iterdir())) == 4


def test_models_in_folders_of_one_name_have_features_of_their_own(
    tiny_checkpoint, cache_folder, calls, tmp_path, rows
):
    folders = [tmp_path / place / "model" for place in ("one", "other", "copy")]
    for folder in folders:
        shutil.copytree(tiny_checkpoint, folder)
    path = folders[1] / "model.safetensors"
    save_file({k: -v for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
    sizes = {(folder / "model.safetensors").stat().st_size for folder in folders}
    assert len(sizes) == 1
    one, other, copy = (features(folder, rows[:4], FeatureSettings(1)) for folder in folders)
    assert (one - other).abs().max() > 0.01
    assert torch.equal(copy, one)
    # Equal models share them, wherever they lie.
    assert len(calls) == 2
    # Another configuration makes another model of the same weights.
    config = json.loads((folders[2] / "config.json").read_text())
    (folders[2] / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 10.0}))
    assert (features(folders[2], rows[:4], FeatureSettings(1)) - one).abs().max() > 0.01


def test_features_are_computed_again_when_their_version_is_raised(
    tiny_checkpoint, cache_folder, calls, monkeypatch, rows
):
    for version in (1, 2, 2):
        monkeypatch.setattr(feature_module, "VERSION", version)
        features(tiny_checkpoint, rows[:2], FeatureSettings(1))
    assert len(calls) == 2


def test_a_failure_leaves_nothing_in_the_cache(tiny_checkpoint, cache_folder, monkeypatch, rows):
    def fail(tensors, path):
        raise OSError("disk full")

    monkeypatch.setattr(feature_module, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        features(tiny_checkpoint, rows[:2], FeatureSettings(1))
    assert list((cache_folder / "features").iterdir()) == []


@pytest.mark.parametrize("layer", [0, 3])
def test_a_layer_that_is_not_there_is_refused(tiny_checkpoint, cache_folder, rows, layer):
    with pytest.raises(ValueError, match=rf"layer must lie between 1 and 2, .* got {layer}"):
        features(tiny_checkpoint, rows, FeatureSettings(layer))


def test_hidden_states_that_are_not_finite_are_refused(
    tiny_checkpoint, cache_folder, monkeypatch, rows
):
    monkeypatch.setattr(
        feature_module,
        "_pool",
        lambda model, batch, pooling: torch.full((len(batch), 32), torch.nan),
    )
    with pytest.raises(ValueError, match="hidden states that are not finite"):
        features(tiny_checkpoint, rows, FeatureSettings(1))
    assert list((cache_folder / "features").iterdir()) == []
