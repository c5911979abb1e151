"""Training the arms of the recipe study: what each start, each drop and each average is."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.errors import UserError
from posttrain.models import embedded, reward_model
from posttrain.models.float64 import compute_in_double
from posttrain.studies.common.groups import divide, load_groups
from posttrain.studies.recipe import starts
from posttrain.studies.recipe.full import (
    Experiment,
    RecipeSettings,
    averaged,
    by_combination,
    by_dropped,
    by_start,
    similarities,
)
from posttrain.studies.recipe.keys import Combined, Dropped, Start
from posttrain.studies.recipe.study import STUDY

SETTINGS = RecipeSettings(
    groups=150, size=40, sizes=[30], test_size=20, seeds=1, learning_rates=[3e-3], noises=[0.0]
)


@pytest.fixture(scope="module")
def experiment():
    loaded = load_groups("simulator", embedded.tiny(), SETTINGS, edits=False)
    return Experiment(divide(loaded, SETTINGS, size=40), SETTINGS)


@pytest.mark.parametrize("kind", [Start.CHAT, Start.UNTRAINED])
def test_other_starts_have_the_words_and_the_shape_of_the_pre_trained_one(kind):
    base, other = embedded.tiny(), starts.checkpoint(kind)
    words = [AutoTokenizer.from_pretrained(folder).get_vocab() for folder in (base, other)]
    assert words[0] == words[1]
    states = [
        AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
        for folder in (base, other)
    ]
    assert {k: (v.shape, v.dtype) for k, v in states[0].items()} == {
        k: (v.shape, v.dtype) for k, v in states[1].items()
    }
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_chat_checkpoint_gives_good_answers_a_higher_probability():
    conversations = starts.demonstrations(starts.ChatSettings(texts=30, seed=7))
    losses = {}
    for kind in Start:
        folder = starts.checkpoint(kind)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = compute_in_double(AutoModelForCausalLM.from_pretrained(folder, dtype="auto"))
        total = 0.0
        for turns in conversations:
            ids = torch.tensor([tokenizer.apply_chat_template(turns, return_dict=False)])
            prompt = len(
                tokenizer.apply_chat_template(
                    turns[:-1], add_generation_prompt=True, return_dict=False
                )
            )
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0, prompt - 1 : -1]
            total += torch.nn.functional.cross_entropy(logits, ids[0, prompt:]).item()
        losses[kind] = total / len(conversations)
    assert losses[Start.CHAT] < losses[Start.PRETRAINED] - 0.1 < losses[Start.UNTRAINED] - 1


def test_demonstrations_are_flawless_and_refuse_what_is_unsafe():
    for turns in starts.demonstrations(starts.ChatSettings(texts=200)):
        asked, answer = turns[-2]["content"], turns[-1]["content"]
        unsafe = any(goal in asked for goal in starts.tasks.UNSAFE_GOALS)
        assert answer.startswith("sorry" if unsafe else "sure :")


def test_the_average_of_models_is_the_mean_of_their_weights(experiment):
    subset = experiment.subset(0, 40)
    models = [experiment.fit(subset, rate=3e-3, seed=s, head_seed=0) for s in range(3)]
    state = averaged(models)[0].state_dict()
    for name, value in state.items():
        mean = sum(model.state_dict()[name] for model, _ in models) / 3
        torch.testing.assert_close(value, mean, rtol=1e-12, atol=1e-15)
    before = [model.state_dict()["score.weight"].clone() for model, _ in models]
    averaged(models)
    assert all(
        torch.equal(old, model.state_dict()["score.weight"])
        for old, (model, _) in zip(before, models, strict=True)
    )


def test_models_of_one_head_seed_start_from_one_head():
    heads = [reward_model.load(embedded.tiny(), seed=s)[0].score.weight for s in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_similarity_counts_words_in_common(experiment):
    alike = similarities(experiment.prepared)
    for k, group in enumerate(experiment.prepared.ranked):
        if group.chosen.split() == group.rejected.split():
            assert alike[k] == 1
        if not set(group.chosen.split()) & set(group.rejected.split()):
            assert alike[k] == 0
    assert ((alike >= 0) & (alike <= 1)).all()
    assert alike.std() > 0


def trained_on(experiment, monkeypatch):
    """The pairs and what was turned round, of every training from now on."""
    seen, fit = [], Experiment.fit

    def recorded(self, pairs, **how):
        seen.append((sorted(pairs.tolist()), how))
        return fit(self, pairs, **how)

    monkeypatch.setattr(Experiment, "fit", recorded)
    return seen


def test_dropped_pairs_are_the_most_similar_or_as_many_at_random(experiment, monkeypatch):
    seen = trained_on(experiment, monkeypatch)
    scores = by_dropped(experiment, seed=0)
    assert list(scores) == list(Dropped)
    whole, similar, random = (set(pairs) for pairs, _ in seen)
    assert (len(whole), len(similar), len(random)) == (40, 30, 30)
    assert similar < whole
    assert random < whole
    assert similar != random
    alike = similarities(experiment.prepared)
    assert max(alike[[*similar]]) <= min(alike[[*(whole - similar)]])
    assert all(one.shape == (1, 2, 20) for one in scores.values())


def test_every_start_trains_on_the_same_pairs(experiment, monkeypatch):
    seen = trained_on(experiment, monkeypatch)
    scores = by_start(experiment, 30, seed=0)
    assert [how["start"] for _, how in seen] == list(Start)
    assert all(pairs == seen[0][0] for pairs, _ in seen)
    assert not np.allclose(scores[Start.CHAT], scores[Start.PRETRAINED])


def test_members_share_a_head_or_not_and_ensembles_are_means(experiment, monkeypatch):
    seen = trained_on(experiment, monkeypatch)
    scores = by_combination(experiment, 0.2, seed=3)
    assert set(scores) == set(Combined)
    together, apart, (whole, how) = seen[:8], seen[8:16], seen[16]
    assert {h["head_seed"] for _, h in together} == {3}
    assert {h["head_seed"] for _, h in apart} == {None}
    assert len({h["seed"] for _, h in together}) == 8
    # Members of either kind see the same pairs, each others, of those that the whole model sees.
    assert [pairs for pairs, _ in together] == [pairs for pairs, _ in apart]
    assert all(set(pairs) < set(whole) for pairs, _ in together)
    assert len(together[0][0]) == round(0.8 * len(whole))
    turned = [h["turned"] for _, h in seen]
    assert all((one == how["turned"]).all() for one in turned)
    assert 0.1 < turned[0].mean() < 0.3
    singles = scores[Combined.SINGLE]
    assert singles.shape == (8, 2, 20)
    np.testing.assert_allclose(scores[Combined.ENSEMBLE_4][0], singles[:4].mean(axis=0))
    assert any(np.array_equal(scores[Combined.BEST][0], one) for one in singles)


def test_a_turned_pair_is_trained_the_other_way_round(experiment):
    subset = experiment.subset(0, 40)
    turned = np.ones(len(experiment.prepared.ranked), dtype=bool)
    right, wrong = (
        experiment.score(*experiment.fit(subset, rate=1e-2, seed=0, turned=t), subset)
        for t in (None, turned)
    )
    assert (right[0] > right[1]).mean() > 0.6 > 0.4 > (wrong[0] > wrong[1]).mean()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"noises": [0.5]}, "noises must lie from 0 to below 0.5"),
        ({"noises": []}, "noises"),
        ({"sizes": [0]}, "sizes of 1 or more"),
        ({"learning_rates": []}, "learning_rates"),
        ({"seeds": 0}, "seeds must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given, sentence):
    with pytest.raises(UserError, match=sentence):
        RecipeSettings(**given)


def test_human_data_are_refused():
    with pytest.raises(UserError, match="its source is the simulator"):
        STUDY.run("seeda", SETTINGS)


def test_a_whole_run_has_every_cell():
    record = STUDY.run("simulator", SETTINGS)
    metrics = record.tables["metrics"]
    assert set(metrics["question"]) == {"start", "similar", "average"}
    assert len(metrics) == 2 * (len(Start) + len(Dropped) + len(Combined))
    assert record.data["clusters"] == 20
    assert metrics[["estimate", "low", "high"]].notna().all().all()
