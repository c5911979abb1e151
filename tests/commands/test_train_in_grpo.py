"""The folder of a trained reward model as what TRL's ``GRPOTrainer`` maximises."""

import json

import pytest
import torch
from command_line import run
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from posttrain.data.sources.simulator.annotators import simulate
from posttrain.policy.trainers import RECOMPUTE, no_word_of_renames


def scores_by_posttrain(folder, records, scratch):
    """What ``posttrain score`` gives to the chosen responses, in their order."""
    (scratch / "said.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    output = scratch / "scores.jsonl"
    assert run(
        "score", "--model", folder, "--data", scratch / "said.jsonl", "--output", output
    ) == 0  # fmt: skip
    found = map(json.loads, output.read_text().splitlines())
    return [line["score"] for line in found if line["response"] == "chosen"]


def test_a_policy_earns_what_posttrain_scores(trained, tiny_checkpoint, tmp_path):
    """Two reward functions: the folder, and one that notes what the policy has said."""
    asked = [
        [{"role": "user", "content": group.ranked.prompt[-1].content}]
        for group in simulate(8, seed=11)
    ]
    said = []
    earned = []

    def note(prompts, completions, **_):
        said.extend(zip(prompts, completions, strict=True))
        return [0.0] * len(prompts)

    with no_word_of_renames():
        trainer = GRPOTrainer(
            str(tiny_checkpoint),
            reward_funcs=[str(trained), note],
            args=GRPOConfig(
                str(tmp_path / "run"),
                use_cpu=True, bf16=False, max_steps=2, per_device_train_batch_size=8,
                num_generations=4, max_completion_length=24, save_strategy="no", report_to="none",
                disable_tqdm=True, **{RECOMPUTE: False},
            ),
            train_dataset=Dataset.from_dict({"prompt": asked}),
        )  # fmt: skip
        trainer.reward_funcs[0].register_forward_hook(
            lambda _model, _rows, found: earned.extend(found.logits[:, 0].tolist())
        )
        trainer.train()
    records = [
        {"prompt": prompt, "chosen": answer, "rejected": [{"role": "assistant", "content": "no"}]}
        for prompt, answer in said
    ]
    expected = scores_by_posttrain(trained, records, tmp_path)
    assert len(expected) == 16
    assert torch.tensor(expected).std() > 0.05
    assert earned == pytest.approx(expected, abs=1e-6)
    mean = trainer.state.log_history[-1][f"rewards/{trained.name}/mean"]
    assert mean == pytest.approx(sum(expected) / 16, abs=1e-6)
