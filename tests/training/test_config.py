"""Settings of training: the papers' recipe by default, and refusals of what contradicts it."""

import json
import math

import pytest
import torch
from transformers import Trainer
from transformers.utils import logging

from posttrain.training.config import RankingConfig

logging.set_verbosity_error()


@pytest.fixture
def make(tmp_path):
    def make(**settings):
        return RankingConfig(str(tmp_path), use_cpu=True, report_to="none", **settings)

    return make


def test_defaults_are_those_of_llama_2(make):
    # Section 3.2.2 and, for AdamW, section 3.1.
    found = make()
    expected = {
        "learning_rate": 1e-5,
        "num_train_epochs": 1.0,
        "weight_decay": 0.1,
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "adam_epsilon": 1e-5,
        "warmup_steps": 0.03,
        "min_warmup_steps": 5,
        "min_learning_rate_share": 0.1,
        "pairs_per_step": 512,
        "loss_type": "pairs",
        "center_rewards_coefficient": 0.0,
        "auxiliary_weight": 0.0,
        "max_grad_norm": 1.0,
    }
    assert {name: getattr(found, name) for name in expected} == expected
    assert found.lr_scheduler_type == "cosine_with_min_lr"


@pytest.mark.parametrize(
    ("settings", "steps", "expected"),
    [
        ({}, 1000, 30),
        ({}, 1001, 31),
        ({}, 167, 6),
        ({}, 166, 5),
        ({}, 100, 5),
        ({}, 3, 5),
        ({"min_warmup_steps": 0}, 100, 3),
        ({"min_warmup_steps": 40}, 1000, 40),
        ({"warmup_steps": 0.5}, 100, 50),
        # Where it is a number, or none is wanted, nothing is added.
        ({"warmup_steps": 2}, 1000, 2),
        ({"warmup_steps": 1}, 1000, 1),
        ({"warmup_steps": 0}, 1000, 0),
        ({"warmup_steps": 40}, 10, 40),
    ],
)
def test_warm_up_is_three_percent_and_at_least_five_steps(make, settings, steps, expected):
    assert make(**settings).get_warmup_steps(steps) == expected


def learning_rates(config, steps):
    """What the optimiser's learning rate is at each step, and after the last one."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate)
    scheduler = Trainer(model, config).create_scheduler(steps, optimizer)
    found = []
    for _ in range(steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("share", [0.1, 0.0, 0.5])
@pytest.mark.parametrize("steps", [100, 400])
def test_the_learning_rate_falls_along_a_cosine_to_its_share(make, steps, share):
    found = learning_rates(make(learning_rate=2e-3, min_learning_rate_share=share), steps)
    warm = max(5, math.ceil(0.03 * steps))
    for step, rate in enumerate(found):
        if step < warm:
            expected = 2e-3 * step / warm
        else:
            cosine = (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2
            expected = 2e-3 * (share + (1 - share) * cosine)
        assert rate == pytest.approx(expected, rel=1e-9, abs=1e-15)
    assert max(found) == found[warm] == 2e-3
    assert found[-1] == pytest.approx(share * 2e-3, abs=1e-15)


def test_another_schedule_may_be_chosen(make):
    found = learning_rates(make(lr_scheduler_type="linear", warmup_steps=0), 10)
    assert found == pytest.approx([1e-5 * (10 - step) / 10 for step in range(11)])
    lowest = make(lr_scheduler_kwargs={"min_lr": 3e-6}, warmup_steps=0)
    assert learning_rates(lowest, 10)[-1] == pytest.approx(3e-6)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"loss_type": "luck"}, "unknown loss_type 'luck'; known: pairs, plackett-luce"),
        (
            {"loss_type": "plackett-luce", "center_rewards_coefficient": 0.1},
            "center_rewards_coefficient is defined on pairs",
        ),
        ({"groups_per_step": 0}, "groups_per_step must be at least 1, not 0"),
        ({"pairs_per_step": 0}, "pairs_per_step must be at least 1, not 0"),
        ({"pairs_per_step": 8, "groups_per_step": 8}, "both say how large a step is"),
        ({"num_train_epochs": 0}, "num_train_epochs must be above 0, not 0"),
        ({"num_train_epochs": -1.0}, "num_train_epochs must be above 0, not -1.0"),
        ({"max_tokens_per_device": 0}, "max_tokens_per_device must be at least 1, not 0"),
        (
            {"center_rewards_coefficient": -0.1},
            "center_rewards_coefficient must not be negative, not -0.1",
        ),
        ({"auxiliary_weight": -0.1}, "auxiliary_weight must not be negative, not -0.1"),
        ({"auxiliary_weight": math.nan}, "auxiliary_weight must be finite, not nan"),
        ({"learning_rate": math.nan}, "learning_rate must be finite, not nan"),
        ({"num_train_epochs": math.inf}, "num_train_epochs must be finite, not inf"),
        ({"adam_beta2": 2.0}, "adam_beta1 and adam_beta2 must be at least 0 and below 1"),
        ({"min_warmup_steps": -1}, "min_warmup_steps must not be negative, not -1"),
        ({"max_tokens_per_device": -5}, "max_tokens_per_device must be at least 1, not -5"),
        ({"per_device_train_batch_size": 8}, "have no say here: set pairs_per_step"),
        ({"per_device_eval_batch_size": 8}, "have no say here: .* also in evaluation"),
        ({"gradient_accumulation_steps": 2}, "have no say here: set pairs_per_step"),
        ({"train_sampling_strategy": "group_by_length"}, "is not random or sequential"),
        ({"resume_from_checkpoint": "x"}, "resume_from_checkpoint='x' has no effect .*--resume"),
        (
            {"label_smoothing_factor": 0.1},
            "label_smoothing_factor=0.1 has no .*no labels to smooth",
        ),
        ({"dataloader_drop_last": True}, "dataloader_drop_last=True has no effect .*what is left"),
        (
            {"auto_find_batch_size": True},
            "auto_find_batch_size=True has no effect .*max_tokens_per_device",
        ),
        ({"average_tokens_across_devices": False}, "=False has no effect .*mean over a step's"),
        ({"include_num_input_tokens_seen": "all"}, "='all' has no effect .*tokens_per_second"),
        ({"include_num_input_tokens_seen": True}, "=True has no effect .*tokens_per_second"),
        ({"label_names": ["labels"]}, r"label_names=\['labels'\] has no effect"),
        ({"length_column_name": "total"}, "length_column_name='total' has no effect"),
        ({"prediction_loss_only": True}, "prediction_loss_only=True has no effect"),
        ({"deepspeed": "zero3.json"}, "deepspeed='zero3.json' is not supported here: .*FSDP"),
        ({"parallelism_config": {"tp_size": 2}}, "parallelism_config=.* is not supported here"),
        ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha=5.0 is not supported here"),
        ({"batch_eval_metrics": True}, "batch_eval_metrics=True is not supported here"),
        ({"eval_do_concat_batches": False}, "eval_do_concat_batches=False is not supported here"),
        ({"include_for_metrics": ["inputs"]}, "include_for_metrics=.* is not supported here"),
        ({"optim": "schedule_free_adamw"}, "optim='schedule_free_adamw' is not supported here"),
        ({"optim": "adalomo"}, "optim='adalomo' is not supported here: .*backward"),
        ({"optim": "galore_adamw_layerwise"}, "optim='galore_.*' is not supported here"),
    ],
)
def test_settings_that_contradict_or_cannot_be_are_refused(make, settings, problem):
    with pytest.raises(ValueError, match=problem):
        make(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"loss_type": "plackett-luce"},
        {"center_rewards_coefficient": 0.1},
        {"loss_type": "plackett-luce", "auxiliary_weight": 0.1},
        {"max_tokens_per_device": None},
        {"groups_per_step": 1, "max_tokens_per_device": 1},
        {"train_sampling_strategy": "sequential"},
    ],
)
def test_settings_that_go_together_are_kept(make, settings):
    found = make(**settings)
    assert {name: getattr(found, name) for name in settings} == settings


def test_transformers_own_account_of_a_step_is_its_number_of_groups(make):
    found = make(groups_per_step=48)
    assert found.train_batch_size * found.world_size * found.gradient_accumulation_steps == 48


def test_columns_of_a_training_set_are_always_kept(make):
    assert not make().remove_unused_columns
    assert not make(remove_unused_columns=True).remove_unused_columns


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"groups_per_step": 48, "max_tokens_per_device": None, "loss_type": "plackett-luce"},
        {"min_learning_rate_share": 0.3, "warmup_steps": 7, "seed": 3, "data_seed": 4},
        {"lr_scheduler_type": "linear", "bf16": True, "optim": "sgd"},
        {"activation_checkpointing": True, "torch_compile": True, "optim": "adafactor"},
    ],
)
def test_settings_come_back_from_their_dictionary(make, settings):
    found = make(**settings)
    # As run.json has it.
    stored = json.loads(json.dumps(found.to_dict()))
    again = RankingConfig(**stored)
    assert again.to_dict() == found.to_dict() == stored
    assert {name: stored[name] for name in settings} == settings
    assert learning_rates(again, 20) == learning_rates(found, 20)


def test_every_setting_of_the_recipe_is_explained():
    own = set(RankingConfig.__annotations__)
    fields = RankingConfig.__dataclass_fields__
    assert own >= {"groups_per_step", "max_tokens_per_device", "learning_rate", "warmup_steps"}
    assert all(fields[name].metadata["help"] for name in own)


def test_steps_between_evaluations_ask_for_them(tmp_path):
    config = RankingConfig(str(tmp_path), use_cpu=True, report_to="none", eval_steps=5)
    assert config.eval_strategy == "steps"
