"""Whole runs of ``posttrain train`` on a tiny model, each about a second long."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from posttrain import cli

#: Ten steps of 24 groups in parts of different sizes, with a checkpoint after every third.
RUN = {
    "data": "simulator:300:3",
    "eval_fraction": 0.2,
    "groups_per_step": 24,
    "max_tokens_per_device": 400,
    "learning_rate": 2e-3,
    "save_steps": 3,
    "save_total_limit": 3,
    "logging_steps": 1,
    "report_to": "none",
    "disable_tqdm": "true",
    "resamples": 50,
    "processes": 1,
}


def options(model, output, **changes):
    """The command line of a run; None leaves a setting out."""
    chosen = {"model": model, "output_dir": output} | RUN | changes
    named = [
        [f"--{name}", *str(value).split()] for name, value in chosen.items() if value is not None
    ]
    return ["train", *(word for pair in named for word in pair), "--use_cpu"]


def train(model, output, *flags, **changes):
    """Exit status of a run in this process."""
    return cli.main([*options(model, output, **changes), *flags])


def weights(folder):
    """All weights of a saved model, by name."""
    return load_file(Path(folder) / "model.safetensors")


def assert_equal_weights(first, second, *, atol=0.0):
    """Two saved models are the same, by default to the last bit."""
    assert weights(first).keys() == weights(second).keys()
    for name, weight in weights(first).items():
        torch.testing.assert_close(weights(second)[name], weight, rtol=0, atol=atol, msg=name)


def refusal(capsys, code):
    """What a refused run says, in one piece."""
    assert code == 1
    error = capsys.readouterr().err
    message = error[error.rindex("posttrain: ") :]
    assert "Traceback" not in error
    return message
