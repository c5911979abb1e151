"""What commands share: devices, inputs and outputs, and what a terminal sees of other troubles."""

import json

import pytest
import torch
from transformers import AutoTokenizer, GPTJConfig, GPTJForSequenceClassification

from posttrain import cli
from posttrain.commands import score
from posttrain.commands.calibrate import CalibrateSettings
from posttrain.commands.common import (
    ModelSettings,
    RowSettings,
    check_packages,
    refuse_overwriting,
    refuse_repeated,
)
from posttrain.commands.evaluate import EvaluateSettings
from posttrain.commands.models import find_device, load_model
from posttrain.commands.score_settings import ScoreSettings
from posttrain.commands.train_settings import TrainSettings
from posttrain.data.sources import named
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.errors import UserError
from posttrain.training.config import RankingConfig


def test_the_cpu_is_found():
    assert find_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["foo", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match=f"device {name!r} cannot be used here"):
        find_device(name)


def test_an_output_does_not_replace_its_input(tmp_path):
    data = tmp_path / "s.jsonl"
    data.write_text("{}\n")
    (tmp_path / "x").mkdir()
    (tmp_path / "link.jsonl").symlink_to(data)
    for output in (data, tmp_path / "link.jsonl", tmp_path / "x" / ".." / "s.jsonl"):
        with pytest.raises(ValueError, match=r"s\.jsonl"):
            refuse_overwriting(str(output), [str(data)])
    refuse_overwriting(str(tmp_path / "scores.jsonl"), [str(data), "simulator:10"])


def test_an_output_that_is_a_folder_is_refused_before_anything_is_computed(tmp_path):
    with pytest.raises(ValueError, match=f"output {tmp_path} is a folder; give the path of a file"):
        ScoreSettings(model="tiny", data=["simulator:3"], output=str(tmp_path))


@pytest.mark.parametrize("kind", [CalibrateSettings, EvaluateSettings, ScoreSettings])
def test_no_command_writes_over_what_it_reads(tmp_path, kind):
    for name in ("s.jsonl", "template.jinja"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    given = {
        "model": str(tmp_path),
        "data": ["simulator:3", str(tmp_path / "s.jsonl")],
        "chat_template": str(tmp_path / "template.jinja"),
    }
    for name in ("s.jsonl", "template.jinja"):
        with pytest.raises(ValueError, match="would be overwritten; write to another file"):
            kind(**given, output=str(tmp_path / "link" / name))
    kind(**given, output=str(tmp_path / "new.json"))


def test_scores_do_not_replace_calibrations(tmp_path):
    for name in ("calibration", "safety_calibration"):
        path = tmp_path / f"{name}.json"
        path.write_text("{}")
        with pytest.raises(ValueError, match=rf"{name}\.json, which is read"):
            ScoreSettings(
                model="tiny",
                data=["simulator:3"],
                safety_model="tiny",
                output=str(path),
                **{name: str(path)},
            )


def test_scores_do_not_replace_their_data(tiny_checkpoint, tmp_path, capsys):
    data = tmp_path / "s.jsonl"
    text = json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"}) + "\n"
    data.write_text(text)
    options = ["--model", str(tiny_checkpoint), "--data", str(data), "--output", str(data)]
    assert cli.main(["score", *options]) == 1
    assert "s.jsonl" in capsys.readouterr().err
    assert data.read_text() == text


def test_a_source_that_is_named_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data names a\.jsonl twice"):
        refuse_repeated("data", ["a.jsonl", "b.jsonl", "a.jsonl"])
    refuse_repeated("data", ["a.jsonl", "b.jsonl"])


@pytest.mark.parametrize("kind", [TrainSettings, ScoreSettings])
def test_a_file_is_the_same_by_every_path(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text("{}\n")
    (tmp_path / "b.jsonl").symlink_to("a.jsonl")
    for other in ("b.jsonl", "./a.jsonl", str(tmp_path / "a.jsonl")):
        with pytest.raises(ValueError, match=rf"data names {other} twice \(.* as a\.jsonl\)"):
            kind(model="tiny", data=["a.jsonl", "simulator:3", other])


def test_what_is_evaluated_on_is_named_once():
    with pytest.raises(ValueError, match="eval_data names simulator:3 twice"):
        TrainSettings(model="tiny", data=["simulator:9"], eval_data=["simulator:3"] * 2)
    both = TrainSettings(model="tiny", data=["simulator:9"], eval_data=["simulator:9", "a"])
    assert both.in_both == ["simulator:9"]


@pytest.mark.parametrize(
    "settings", [{"lora_rank": -1}, {"lora_dropout": 2.0}, {"split_seed": -3}], ids=str
)
def test_numbers_that_make_no_sense_are_refused(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=name):
        TrainSettings(model="tiny", data=["simulator:9"], **settings)


def test_packages_that_settings_need_are_missed_before_anything_starts(tmp_path, monkeypatch):
    for name in ("wandb", "trackio"):
        available = f"transformers.integrations.integration_utils.is_{name}_available"
        monkeypatch.setattr(available, bool)
        with pytest.raises(UserError, match=rf"report_to: .*pip install {name}"):
            check_packages(RankingConfig(str(tmp_path), report_to=[name], use_cpu=True))
    with pytest.raises(UserError, match=r"report_to: foo is not supported, only .*tensorboard"):
        check_packages(RankingConfig(str(tmp_path), report_to=["foo"], use_cpu=True))
    monkeypatch.setattr("posttrain.commands.common.is_liger_kernel_available", bool)
    config = RankingConfig(str(tmp_path), use_liger_kernel=True, report_to=[], use_cpu=True)
    with pytest.raises(UserError, match="use_liger_kernel needs the package liger-kernel"):
        check_packages(config)
    check_packages(RankingConfig(str(tmp_path), report_to=[], use_cpu=True))
    monkeypatch.setattr("transformers.trainer_optimizer.is_bitsandbytes_available", bool)
    with pytest.raises(ValueError, match=r"optim: .*bitsandbytes.* Or take another optim"):
        check_packages(RankingConfig(str(tmp_path), optim="adamw_bnb_8bit", use_cpu=True))


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "posttrain: interrupted"),
        (ImportError("install flash_attn", name="flash_attn"), 1, "a package that this needs"),
    ],
)
def test_what_ends_a_command_is_said_in_a_line(
    tmp_path, tiny_checkpoint, monkeypatch, capsys, error, code, message
):
    def fail(settings):
        raise error

    monkeypatch.setattr(score, "run", fail)
    options = ["--model", str(tiny_checkpoint), "--data", "simulator:3"]
    assert cli.main(["score", *options]) == code
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (ScoreSettings, "batch_tokens"),
        (CalibrateSettings, "batch_tokens"),
        (EvaluateSettings, "resamples"),
        (TrainSettings, "resamples"),
        (TrainSettings, "processes"),
    ],
)
@pytest.mark.parametrize("value", [0, -5])
def test_numbers_below_one_are_refused(kind, name, value, tmp_path):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not {value}"):
        kind(model=str(tmp_path), data=["simulator:3"], **{name: value})


def late_error():
    """What a library raises that was interrupted, as multiprocess does: while it cleans up."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        raise RuntimeError("a worker did not answer in time")  # noqa: B904


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [interrupt, late_error])
def test_an_interrupt_leaves_no_half_written_scores(
    tmp_path, tiny_checkpoint, monkeypatch, capsys, stop
):
    def source(*_, **__):
        yield from (group.ranked for group in simulate(3, seed=1))
        stop()

    monkeypatch.setattr(named, "iterate_by", source)
    monkeypatch.setattr("posttrain.evaluation.scoring.CHUNK", 1)
    output = tmp_path / "scores.jsonl"
    options = ["--model", str(tiny_checkpoint), "--data", "x", "--output", str(output)]
    assert cli.main(["score", *options]) == 130
    assert capsys.readouterr().err.endswith("posttrain: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_nobody_expected_keeps_its_traceback(monkeypatch):
    def fail(settings):
        raise KeyError("x")

    monkeypatch.setattr(score, "run", fail)
    with pytest.raises(KeyError):
        cli.main(["score", "--model", "tiny", "--data", "simulator:3"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n{% for %}", "template.jinja, line 2: no Jinja template (Expected an expression"),
        (
            b"{{ raise_exception('no system, please') }}",
            "cannot write a conversation of user: no system, please",
        ),
        (b"\xff\xfe", r"template.jinja: cannot be read (not UTF-8 text)"),
    ],
)
def test_a_chat_template_that_fails_is_said(tmp_path, tiny_checkpoint, capsys, content, message):
    path = tmp_path / "template.jinja"
    path.write_bytes(content)
    options = ["--model", str(tiny_checkpoint), "--data", "simulator:3", "--chat_template"]
    output = tmp_path / "scores.jsonl"
    assert cli.main(["score", *options, str(path), "--output", str(output)]) == 1
    assert message in capsys.readouterr().err
    assert not output.exists()


@pytest.fixture
def gptj(tiny_checkpoint, tmp_path):
    """A class that has eager attention alone."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "rotary_dim": 4}
    config = GPTJConfig(vocab_size=len(tokenizer), **sizes, pad_token_id=0, num_labels=1)
    GPTJForSequenceClassification(config).save_pretrained(tmp_path / "gptj")
    tokenizer.save_pretrained(tmp_path / "gptj")
    return tmp_path / "gptj"


@pytest.mark.parametrize("gpu", [False, True])
def test_without_a_setting_attention_is_one_that_the_class_has(
    gptj, tiny_checkpoint, tmp_path, gpu
):
    rows = RowSettings(layout="exact")
    # Attention with dropout cannot be computed in two pieces.
    model, tokenizer = load_model(ModelSettings(model=str(tiny_checkpoint)), rows, seed=0, gpu=gpu)
    model.config.attention_dropout = 0.1
    model.save_pretrained(tmp_path / "dropout")
    tokenizer.save_pretrained(tmp_path / "dropout")
    for folder, expected in (
        (gptj, "eager"),
        (tiny_checkpoint, "shared_prefix"),
        (tmp_path / "dropout", "flex_attention" if gpu else "sdpa"),
    ):
        model, _ = load_model(ModelSettings(model=str(folder)), rows, seed=0, gpu=gpu)
        assert model.config._attn_implementation == expected


@pytest.mark.parametrize("attention", ["sdpa", "flex_attention", "flash_attention_2", "nonsense"])
def test_an_attention_that_the_class_lacks_is_refused_by_its_option(gptj, attention):
    settings = ModelSettings(model=str(gptj), attention=attention)
    with pytest.raises(UserError, match=f"attention '{attention}' .*; set --attention to eager"):
        load_model(settings, RowSettings(layout="separate"), seed=0, gpu=False)
