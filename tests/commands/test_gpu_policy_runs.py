"""The runs of policies that are meant for a GPU, rehearsed on a tiny model and a CPU."""

import json
from pathlib import Path

import pytest
from command_line import run
from reward_folders import save_leaning
from transformers import AutoModelForCausalLM

from posttrain.data.reading import write_groups
from posttrain.data.sources.simulator.annotators import simulate

RUNS = Path(__file__).parents[2] / "runs"
#: What a tiny model on a CPU needs changed, and no more.
SMALL = ("--use_cpu", "true", "--max_length", "256", "--max_steps", "2")


@pytest.fixture
def data(tmp_path):
    """A file of preferences, which sft and rounds read as well."""
    groups = [group.ranked for group in simulate(16, seed=2, multi_turn=0)]
    write_groups(tmp_path / "mine.jsonl", groups)
    return tmp_path / "mine.jsonl", groups


@pytest.mark.parametrize("command", ["sft", "dpo"])
def test_steps_of_a_round_of_llama31(command, data, tiny_checkpoint, tmp_path):
    template = tmp_path / "template.jinja"
    template.write_text((tiny_checkpoint / "chat_template.jinja").read_text())
    config = RUNS / f"{command}_llama31_8b_gpu.yaml"
    changes = {"model": tiny_checkpoint, "data": data[0], "output_dir": tmp_path / "out"}
    given = [str(part) for name, value in changes.items() for part in (f"--{name}", value)]
    assert run(command, "--config", config, *given, "--chat_template", template, *SMALL) == 0
    account = json.loads((tmp_path / "out" / "run.json").read_text())
    assert account["training"]["bf16"] is True
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").num_parameters()


def test_rounds_of_smollm2(data, tiny_checkpoint, tmp_path):
    path, groups = data
    judge = save_leaning(tiny_checkpoint, tmp_path / "judge", groups, size=3.0)
    changes = {
        "model": tiny_checkpoint, "prompt_data": path, "first_data": path, "judge": judge,
        "output_dir": tmp_path / "out", "rounds": 1, "pairs": 4, "prompts": 4, "samples": 4,
        "max_new_tokens": 24, "evaluation_prompts": 1, "device": "cpu",
    }  # fmt: skip
    given = [str(part) for name, value in changes.items() for part in (f"--{name}", value)]
    assert run("rounds", "--config", RUNS / "rounds_smollm2_gpu.yaml", *given) == 0
    (done,) = json.loads((tmp_path / "out" / "rounds.json").read_text())["rounds"]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out" / done["policy"]).num_parameters()
