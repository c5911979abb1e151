"""What `posttrain data check --model` shows: lengths, and what limits cut as training does."""

import re
import shutil

import pytest
from command_line import run

from posttrain.commands.token_check import advice
from posttrain.data.reading import write_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.data.store import stored
from posttrain.evaluation.tokens import Cut, TokenFigures
from posttrain.models.loading import load_tokenizer
from posttrain.rows.limits import Limits
from posttrain.training.dataset import tokenized
from posttrain.training.pairing import Pairing


@pytest.fixture
def drawn(tmp_path):
    path = tmp_path / "drawn.jsonl"
    write_groups(path, (group.ranked for group in simulate(40, seed=5, edited_share=0.5)))
    return path


def row(out, beginning):
    (line,) = [line for line in out.splitlines() if line.startswith(beginning)]
    return [int(number.replace(",", "")) for number in line.split()[-3:]]


# Padding at the end of a row, which stock models skip, does not count.
@pytest.mark.parametrize(
    ("limit", "pad"), [(20, "<|pad|>"), (28, "<|pad|>"), (300, "<|pad|>"), (20, "<|end|>")]
)
def test_limits_cut_and_leave_out_what_training_does(drawn, tiny_checkpoint, capsys, limit, pad):
    options = ("--max_tokens", limit, "--pad_token", pad)
    assert run("data", "check", drawn, "--model", tiny_checkpoint, *options) == 0
    captured = capsys.readouterr()
    tokenizer = load_tokenizer(tiny_checkpoint, pad)
    limits = Limits(limit, skip_too_long=True, skipped_end=tokenizer.pad_token_id)
    counts = tokenized(stored([str(drawn)]), tokenizer, Pairing(), limits).counts
    # The model's context is 256, and so is a limit beyond it.
    trimmed, lost, too_long = row(captured.out, f"{limit}, as set" if limit < 256 else "256,")
    assert trimmed == counts.get("trimmed prompts", 0)
    assert too_long == counts.get("groups that are too long", 0)
    assert (lost > 0) == (trimmed > 0)
    assert row(captured.out, "256,") == [0, 0, 0]
    listed = captured.err.splitlines()
    if too_long > 5:
        assert len(listed) == 6
        assert f"{drawn}: {too_long - 5} more records that are too long" in listed[-1]
    else:
        assert len(listed) == too_long


def test_weights_are_not_read(drawn, tiny_checkpoint, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, model)
    (model / "model.safetensors").unlink()
    assert run("data", "check", drawn, drawn, "--model", model) == 0
    assert capsys.readouterr().out.count(f", in tokens of {model}") == 2


def figures_of(*lengths):
    figures = TokenFigures()
    for prompt, response in lengths:
        figures.prompts.append(prompt)
        figures.longest.append(response)
    return figures


@pytest.mark.parametrize("lengths", [[(5, 5), (90, 5)], [(5, 20), (5, 5)], [(5, 20), (90, 5)]])
@pytest.mark.parametrize(("limit", "most"), [(15, 100), (15, None), (15, 30), (15, 15)])
def test_advice_names_options_that_help(lengths, limit, most):
    figures = figures_of(*lengths)
    found = advice(figures, Limits(limit, context=most))
    assert ("--skip_too_long" in found) == (figures.at(limit).too_long > 0)
    named = re.search(r"--max_tokens (\d+)", found)
    if most == limit:
        assert named is None
    else:
        better = int(named[1])
        whole = figures.at(better) == Cut(0, 0, 0)
        assert whole if most is None or most == 100 else better <= most
        # No lower limit would do as well.
        assert figures.at(better - 1) != figures.at(better) or not whole


def test_advice_is_nothing_where_all_is_read_whole():
    figures = figures_of((5, 5), (9, 6))
    for limits in (Limits(15, context=20), Limits()):
        assert "--" not in advice(figures, limits)
