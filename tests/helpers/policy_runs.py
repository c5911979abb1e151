"""Whole runs of ``posttrain sft`` and ``posttrain dpo`` on a tiny model, each about a second."""

import shutil

from posttrain import cli

#: Six steps of eight examples, with a checkpoint after every second.
RUN = {
    "data": "simulator:48:3",
    "per_device_train_batch_size": 8,
    "num_train_epochs": 1,
    "learning_rate": 1e-3,
    "max_length": 256,
    "save_steps": 2,
    "save_total_limit": 3,
    "logging_steps": 2,
    "report_to": "none",
    "disable_tqdm": "true",
}


def train(command, model, output, *flags, **changes):
    """Exit status of a run in this process; None leaves a setting out."""
    chosen = {"model": model, "output_dir": output} | RUN | changes
    named = [
        [f"--{name}", *str(value).split()] for name, value in chosen.items() if value is not None
    ]
    words = [word for pair in named for word in pair]
    return cli.main([command, *words, *map(str, flags), "--use_cpu"])


def interrupted(whole, folder, *, after):
    """A copy of a run as if it had been killed after a checkpoint."""
    shutil.copytree(whole, folder)
    for path in folder.iterdir():
        number = path.name.removeprefix("checkpoint-")
        if path.is_dir() and int(number) > after:
            shutil.rmtree(path)
        elif path.is_file() and path.name != "settings.json":
            path.unlink()
    return folder
