"""The card: a header that the hub reads, and the numbers of the run where a reader looks."""

import re

import pytest
import yaml
from huggingface_hub import ModelCard

from posttrain.commands.train_settings import TrainSettings
from posttrain.data.preferences import Message, RankedGroup
from posttrain.evaluation.report import report
from posttrain.evaluation.scoring import Scored
from posttrain.training.config import RankingConfig
from posttrain.training.model_card import SHOWN, model_card


def estimate(value, low=None, high=None):
    return {"estimate": value, "low": low, "high": high}


EVALUATION = {
    "groups": 1234,
    "pairs": 5678,
    "accuracy": estimate(0.7251, 0.7012, 0.7488),
    "accuracy_by_strength": {
        "1": estimate(0.5561, 0.5012, 0.6123),
        "4": estimate(0.9132, 0.8841, 0.9377),
    },
    "accuracy_by_domain": {
        "helpfulness": estimate(0.7312, 0.7123, 0.7534),
        "safety": estimate(0.6945, None, None),
    },
    "log_likelihood": estimate(-0.5512, -0.57, -0.53),
    "calibration_error": estimate(0.0423, 0.0311, 0.0634),
    "calibration": [],
    "ties": 0.00123,
    "scores": {"mean": 0.1, "standard_deviation": 1.2},
    "length_baseline": estimate(0.5634, 0.5423, 0.5845),
    "accuracy_over_length_baseline": estimate(0.1617, 0.1345, 0.1889),
    "longer_preferred": None,
    "by_pair": {
        "chosen > rejected": {"pairs": 5678} | estimate(0.7251, 0.7012, 0.7488),
        "edited > chosen": {"pairs": 321} | estimate(None),
    },
}


def account(**changes):
    """What is recorded of a run, with other parts where they are given."""
    return {
        "settings": {
            "model": "meta-llama/Llama-3.2-1B",
            "mix": "safety",
            "layout": "exact",
            "pairs": "all",
            "weighting": "prompt",
            "margins": "none",
            "min_strength": 3,
            "max_tokens": None,
            "lora_rank": 16,
            "top_layers": 0,
            "dtype": "bfloat16",
            "eval_fraction": 0.0625,
        },
        "training": {
            "loss_type": "plackett-luce",
            "center_rewards_coefficient": 0.0,
            "learning_rate": 2e-5,
            "lr_scheduler_type": "cosine_with_min_lr",
            "num_train_epochs": 1.5,
            "max_steps": -1,
            "groups_per_step": 384,
            "weight_decay": 0.1,
            "bf16": True,
            "seed": 17,
            "dataloader_num_workers": 77,
        },
        "data": {
            "sources": ["mine.jsonl", "nvidia/HelpSteer3"],
            "read": {"bad records": 12, "identical responses": 1003},
            "training": {"groups": 40123, "pairs": 60456, "trimmed prompts": 789},
            "evaluation": {"groups": 2111, "pairs": 3222},
            "fingerprint": "0123456789abcdef",
        },
        "steps": 1057,
        "training_loss": 0.654321,
        "evaluation": EVALUATION,
        "environment": {
            "versions": {"posttrain": "0.1.0", "torch": "2.11"},
            "device": "NVIDIA H100",
            "commit": "abcdef012345",
            "seconds": 4567.8,
        },
    } | changes  # fmt: skip


def cells(card):
    """The rows of all tables of a card, by their first cell."""
    rows = [re.findall(r"\|([^|]*)(?=\|)", line) for line in card.splitlines() if line[:1] == "|"]
    assert {len(row) for row in rows} == {2}
    return {name.strip(): value.strip() for name, value in rows}


def test_the_header_is_what_the_hub_reads():
    card = model_card(account())
    assert card.startswith("---\n")
    header = yaml.safe_load(card.split("---\n")[1])
    assert header == {
        "base_model": "meta-llama/Llama-3.2-1B",
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["reward-model", "posttrain"],
    }
    read = ModelCard(card)
    assert read.data.to_dict() == header
    assert read.text.strip().startswith("# Reward model")


@pytest.mark.parametrize("model", ["tiny", "./my: model #1", "{model}", "a'b\"c", "- x", "on"])
def test_a_model_without_a_public_name_is_no_base_of_the_header(model):
    made = account()
    made["settings"] = made["settings"] | {"model": model}
    card = model_card(made)
    # The hub would look for a model of this name.
    assert ModelCard(card).data.base_model is None
    assert f"from `{model}` on ranked" in card.replace("\n", " ")


@pytest.mark.parametrize(
    ("model", "name"),
    [("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct"), ("a-b/c.d_1", "a-b/c.d_1")],
)
def test_a_public_name_is_the_base_of_the_header(model, name):
    made = account()
    made["settings"] = made["settings"] | {"model": model}
    assert ModelCard(model_card(made)).data.base_model == name


def test_a_folder_that_looks_like_a_public_name_is_none(tmp_path, monkeypatch):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    made = account()
    made["settings"] = made["settings"] | {"model": "runs/mine"}
    assert ModelCard(model_card(made)).data.base_model is None


def test_the_numbers_of_the_data_are_there():
    card = model_card(account())
    assert "Sources: `mine.jsonl`, `nvidia/HelpSteer3`." in card
    assert "- training: 40,123 groups, 60,456 pairs, 789 trimmed prompts\n" in card
    assert "- evaluation: 2,111 groups, 3,222 pairs\n" in card
    assert "- left out while reading: 12 bad records, 1,003 identical responses\n" in card


def test_the_numbers_of_the_evaluation_are_there():
    card = model_card(account())
    found = cells(card)
    assert "5,678 pairs of 1,234 groups, 95 % interval" in card
    expected = {
        "accuracy on held-out pairs": "72.5 % [70.1, 74.9]",
        "accuracy at strength 1": "55.6 % [50.1, 61.2]",
        "accuracy at strength 4": "91.3 % [88.4, 93.8]",
        "accuracy in helpfulness": "73.1 % [71.2, 75.3]",
        "accuracy in safety": "69.5 %",
        "accuracy of preferring the longer response": "56.3 % [54.2, 58.5]",
        "above preferring the longer response": "16.2 points [13.5, 18.9]",
        "expected calibration error": "4.2 %",
        "ties": "0.12 %",
        "accuracy on chosen > rejected": "72.5 % [70.1, 74.9]",
        "accuracy on edited > chosen": "–",
    }
    assert {name: found.get(name) for name in expected} == expected


def test_settings_and_environment_are_there():
    made = account()
    found = cells(model_card(made))
    chosen = made["settings"] | made["training"]
    for name in chosen.keys() & SHOWN:
        assert found[name] == f"`{chosen[name]}`"
    assert found["learning_rate"] == "`2e-05`"
    assert found["max_tokens"] == "`None`"
    assert "dataloader_num_workers" not in found
    assert (found["steps"], found["training loss"]) == ("1,057", "0.6543")
    assert (found["device"], found["minutes"]) == ("NVIDIA H100", "76.1")
    assert found["posttrain"] == "0.1.0, commit abcdef012345"


def test_settings_that_are_shown_exist(tmp_path):
    training = RankingConfig(str(tmp_path), use_cpu=True).to_dict()
    assert set(SHOWN) <= set(training) | set(TrainSettings.__dataclass_fields__)


def test_a_bar_in_a_name_does_not_end_its_cell():
    found = EVALUATION | {"accuracy_by_domain": {"a|b": estimate(0.5)}}
    assert "| accuracy in a\\|b | 50.0 % |" in model_card(account(evaluation=found))


def test_metrics_of_the_trainer_take_the_place_of_a_report():
    metrics = {
        "eval_loss": 0.61234567,
        "eval_accuracy": 0.71234,
        "eval_accuracy_4": 0.9,
        "epoch": 1.0,
    }
    found = cells(model_card(account(evaluation=metrics)))
    assert {name: found[name] for name in ("loss", "accuracy", "accuracy_4", "epoch")} == {
        "loss": "0.6123", "accuracy": "0.7123", "accuracy_4": "0.9", "epoch": "1",
    }  # fmt: skip


@pytest.mark.parametrize("edited", [True, False])
def test_a_report_fits_into_the_card(edited):
    names = ("edited", "chosen", "rejected")[not edited :]
    scored = [
        Scored(
            RankedGroup(
                f"g{number}",
                (Message("user", "Why?"),),
                ("best", "good", "bad")[not edited :],
                strength=1 + number % 4,
                cluster_id=f"g{number}",
                domain=("helpfulness", "safety")[number % 2],
            ),
            dict(zip(names, (2.0, number % 3, 1.0)[not edited :], strict=True)),
        )
        for number in range(20)
    ]  # fmt: skip
    found = report(scored, resamples=20)
    rows = cells(model_card(account(evaluation=found)))
    shown = f"{100 * found['accuracy']['estimate']:.1f} % ["
    assert rows["accuracy on held-out pairs"].startswith(shown)
    assert {name for name in rows if name.startswith(("accuracy at", "accuracy in"))} == {
        *(f"accuracy at strength {strength}" for strength in "1234"),
        "accuracy in helpfulness",
        "accuracy in safety",
    }
    assert ("accuracy on edited > rejected" in rows) == edited
