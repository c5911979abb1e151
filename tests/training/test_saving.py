"""Saved models: the same scores after loading, and nothing half-written that looks whole."""

import json
import os

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from posttrain.models import reward_model
from posttrain.models.reward_model import accept_rows, has_fresh_head, score, score_head
from posttrain.rows.layout import LAYOUTS
from posttrain.training import saving
from posttrain.training.saving import finish, save

WRITTEN = {
    "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    "chat_template.jinja",
}  # fmt: skip
TEXTS = {"README.md": "# A card 🐈\n", "run.json": "{}\n"}


def with_head(loaded, seed=1):
    """A model whose head holds numbers that half precision cannot."""
    model, tokenizer = loaded
    head = score_head(model).weight
    torch.nn.init.normal_(head, generator=torch.Generator().manual_seed(seed))
    if model.dtype == torch.bfloat16:
        assert not torch.equal(head.to(torch.bfloat16).to(head.dtype), head)
    return model, tokenizer


def precisions(folder):
    return {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()}


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_scores_after_loading_are_those_before_saving(
    tiny_checkpoint, tiny_groups, tmp_path, dtype
):
    model, tokenizer = with_head(reward_model.load(tiny_checkpoint, dtype=dtype))
    model = finish(model)
    expected = score(model, tiny_groups, pad_token_id=0, layout=LAYOUTS["exact"])
    save(model, tokenizer, tmp_path)
    again, its_tokenizer = reward_model.load(tmp_path)
    assert again.dtype == dtype
    assert precisions(tmp_path) == {dtype}
    assert not has_fresh_head(again)
    assert torch.equal(score(again, tiny_groups, pad_token_id=0, layout=LAYOUTS["exact"]), expected)
    assert expected.std() > 0.1
    assert its_tokenizer.get_vocab() == tokenizer.get_vocab()
    assert its_tokenizer.chat_template == tokenizer.chat_template


def test_finishing_rounds_the_head_of_a_half_precision_model_and_nothing_else(bfloat16_model):
    model, _ = with_head(bfloat16_model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert finish(model) is model
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name != "score.weight")
    rounded = before["score.weight"].to(torch.bfloat16)
    assert score_head(model).weight.dtype == torch.float32
    assert torch.equal(score_head(model).weight, rounded.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_finishing_leaves_a_model_in_full_precision_as_it_is(tiny_checkpoint, dtype):
    model, _ = with_head(reward_model.load(tiny_checkpoint, dtype=dtype))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    finish(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_stock_classes_load_what_is_saved(tiny_checkpoint, tiny_groups, tmp_path):
    model, tokenizer = with_head(reward_model.load(tiny_checkpoint, dtype=torch.float32))
    save(finish(model), tokenizer, tmp_path)
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token_id == 0
    ours = score(model, tiny_groups[:6], pad_token_id=0)
    theirs = [
        stock(torch.tensor([[*group.prompt, *response]])).logits.item()
        for group in tiny_groups[:6]
        for response in group.responses
    ]
    assert ours.tolist() == pytest.approx(theirs, abs=1e-5)


def test_a_trained_forward_is_saved_as_a_stock_model(tiny_model, tiny_groups, tmp_path):
    model, tokenizer = with_head(tiny_model)
    expected = score(accept_rows(model), tiny_groups, pad_token_id=0)
    save(finish(model), tokenizer, tmp_path)
    again, _ = reward_model.load(tmp_path)
    assert torch.equal(score(again, tiny_groups, pad_token_id=0), expected)


def with_adapters(checkpoint, dtype):
    """A peft model with adapters that change its scores, and its tokenizer."""
    peft = pytest.importorskip("peft")
    model, tokenizer = with_head(reward_model.load(checkpoint, dtype=dtype))
    wrapped = peft.get_peft_model(
        model, peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules="all-linear")
    )
    random = torch.Generator().manual_seed(0)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=random)
    return wrapped.eval(), tokenizer


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_adapters_are_merged(tiny_checkpoint, tiny_groups, tmp_path, dtype):
    wrapped, tokenizer = with_adapters(tiny_checkpoint, dtype)
    apart = score(wrapped, tiny_groups, pad_token_id=0)
    plain, _ = with_head(reward_model.load(tiny_checkpoint, dtype=dtype))
    effect = (score(plain, tiny_groups, pad_token_id=0) - apart).abs().max().item()
    assert effect > 0.1
    model = finish(wrapped)
    merged = score(model, tiny_groups, pad_token_id=0)
    rounding = 1e-5 if dtype == torch.float32 else effect / 5
    torch.testing.assert_close(merged, apart, rtol=0, atol=rounding)
    save(model, tokenizer, tmp_path)
    assert names(tmp_path) == WRITTEN
    again, _ = reward_model.load(tmp_path)
    assert torch.equal(score(again, tiny_groups, pad_token_id=0), merged)


def test_weights_are_safetensors_and_texts_stand_beside_them(tiny_model, tmp_path):
    model, tokenizer = tiny_model
    folder = tmp_path / "new"
    folder.mkdir()
    save(model, tokenizer, folder, files=TEXTS)
    assert names(folder) == WRITTEN | set(TEXTS)
    for name, text in TEXTS.items():
        assert (folder / name).read_text(encoding="utf-8") == text


def test_the_folder_may_hold_other_files(tiny_model, tmp_path):
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "settings.json").write_text("{}")
    (tmp_path / "README.md").write_text("old")
    (tmp_path / ".model-partial").mkdir()
    (tmp_path / ".model-partial" / "of-a-run-that-was-killed").touch()
    save(*tiny_model, tmp_path, files=TEXTS)
    assert names(tmp_path) == WRITTEN | set(TEXTS) | {"checkpoint-5", "settings.json"}
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == TEXTS["README.md"]


def test_given_weights_are_saved_in_place_of_the_models_own(bfloat16_model, tiny_groups, tmp_path):
    model, tokenizer = with_head(bfloat16_model)
    finish(model)
    expected = score(model, tiny_groups, pad_token_id=0)
    # In float32, as a trainer gathers them from its processes.
    state = {name: tensor.float().clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    save(model, tokenizer, tmp_path, state=state)
    again, _ = reward_model.load(tmp_path)
    assert again.dtype == torch.bfloat16
    assert precisions(tmp_path) == {torch.bfloat16}
    assert torch.equal(score(again, tiny_groups, pad_token_id=0), expected)
    assert expected.std() > 0.1


def stop(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.fixture
def failing_at(monkeypatch):
    """Let the disk be full once so many files have got their names."""

    def fail(count):
        calls = []
        replace = saving.os.replace

        def limited(source, target):
            if len(calls) == count:
                stop()
            calls.append(target.name)
            replace(source, target)

        monkeypatch.setattr(saving.os, "replace", limited)
        return calls

    return fail


COUNT = len(WRITTEN) + len(TEXTS)


@pytest.mark.parametrize("before", [True, False], ids=["over an old model", "into a new folder"])
@pytest.mark.parametrize("count", range(COUNT))
def test_a_failure_at_any_file_leaves_nothing_that_looks_whole(
    tiny_model, tmp_path, failing_at, before, count
):
    if before:
        save(*tiny_model, tmp_path, files=TEXTS)
    calls = failing_at(count)
    with pytest.raises(OSError, match="No space left"):
        save(*tiny_model, tmp_path, files=TEXTS)
    assert len(calls) == count
    assert "config.json" not in names(tmp_path)
    assert ".model-partial" not in names(tmp_path)
    with pytest.raises(ValueError, match="Unrecognized model"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)


def test_the_configuration_comes_last(tiny_model, tmp_path, failing_at):
    calls = failing_at(None)
    save(*tiny_model, tmp_path, files=TEXTS)
    assert len(calls) == COUNT
    assert calls[-1] == "config.json"


@pytest.mark.parametrize("part", ["model", "tokenizer", "texts"])
def test_a_failure_before_all_is_written_leaves_the_old_model(
    monkeypatch, tiny_model, tiny_groups, tmp_path, part
):
    model, tokenizer = with_head(tiny_model)
    expected = score(model, tiny_groups, pad_token_id=0)
    save(model, tokenizer, tmp_path, files=TEXTS)
    with torch.no_grad():
        score_head(model).weight.zero_()
    texts = {"README.md": "new"}
    if part == "texts":
        texts["missing/folder.md"] = "x"
    else:
        monkeypatch.setattr(
            type({"model": model, "tokenizer": tokenizer}[part]), "save_pretrained", stop
        )
    with pytest.raises(OSError, match="No s"):
        save(model, tokenizer, tmp_path, files=texts)
    monkeypatch.undo()
    assert names(tmp_path) == WRITTEN | set(TEXTS)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == TEXTS["README.md"]
    again, _ = reward_model.load(tmp_path)
    assert torch.equal(score(again, tiny_groups, pad_token_id=0), expected)


def test_the_configuration_says_one_score(tiny_model, tmp_path):
    save(*tiny_model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert len(config["id2label"]) == 1
    assert config["problem_type"] == "regression"
    assert config["pad_token_id"] == 0


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_weights_under_other_names_than_those_of_the_class_are_refused(
    tiny_checkpoint, tiny_model, tmp_path
):
    wrapped, tokenizer = with_adapters(tiny_checkpoint, torch.float64)
    with pytest.raises(ValueError, match=r"names of weights differ .* such as .*(lora|base)"):
        save(wrapped, tokenizer, tmp_path)
    model, tokenizer = tiny_model
    state = model.state_dict()
    others = (
        {f"base_model.model.{name}": weight for name, weight in state.items()},
        {name: weight for name, weight in state.items() if name != "score.weight"},
    )
    for changed in others:
        with pytest.raises(ValueError, match="names of weights differ from those of its class"):
            save(model, tokenizer, tmp_path, state=changed)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_weights_that_are_not_finite_as_they_are_written_are_refused(
    bfloat16_model, tmp_path, value
):
    model, tokenizer = bfloat16_model
    state = {name: tensor.double() for name, tensor in model.state_dict().items()}
    state["model.norm.weight"][0] = value
    with pytest.raises(ValueError, match=r"1 weights are not finite, such as model\.norm\.weight"):
        save(model, tokenizer, tmp_path, state=state)
    assert names(tmp_path) == set()


def test_an_error_of_safetensors_is_one_of_the_disk(monkeypatch, tiny_model, tmp_path):
    model, tokenizer = tiny_model

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr(type(model), "save_pretrained", full)
    with pytest.raises(OSError, match=f"could not be written to {tmp_path} .*No space left.*room"):
        save(model, tokenizer, tmp_path)
    assert names(tmp_path) == set()


def test_a_tokenizer_with_several_templates_is_saved_again(tiny_model, tmp_path):
    model, tokenizer = tiny_model
    before = tokenizer.chat_template
    tokenizer.chat_template = {"default": before, "tools": before + "{# tools #}"}
    try:
        for _ in range(2):
            written = save(model, tokenizer, tmp_path)
    finally:
        tokenizer.chat_template = before
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert folder.stat().st_mode & 0o100
    assert folder.name in written
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.chat_template.keys() == {"default", "tools"}


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_all_files_can_be_read_by_whom_the_umask_lets(tiny_model, tmp_path, umask):
    before = os.umask(umask)
    try:
        save(*tiny_model, tmp_path, files=TEXTS | {"loss.png": b"\x89PNG"})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~umask}
    assert (tmp_path / "loss.png").read_bytes() == b"\x89PNG"
