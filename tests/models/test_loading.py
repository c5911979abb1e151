"""Checkpoints that carry code or pickles are refused, and nothing of them is run."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BertConfig, BertForMaskedLM

from posttrain import cli
from posttrain.errors import UserError
from posttrain.models import loading, reward_model
from posttrain.models.loading import contents, load_classifier, load_tokenizer

CODE = """
from pathlib import Path
Path(__file__).with_name("marker").touch()
from transformers import LlamaConfig as Config, LlamaForSequenceClassification as Model
from transformers import PreTrainedTokenizerFast as Tokenizer
"""


@pytest.fixture(autouse=True)
def nobody_answers(monkeypatch):
    def ask(*_):
        pytest.fail("the user is asked")

    monkeypatch.setattr("builtins.input", ask)


@pytest.fixture
def folder(tiny_checkpoint, tmp_path):
    """A copy of a checkpoint, which a test may change."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "model")


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("model_type", ["llama", "unheard-of"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_folder_with_code_is_refused_and_the_code_not_run(folder, tmp_path, name, model_type):
    names = {
        "AutoConfig": "code.Config",
        "AutoModelForSequenceClassification": "code.Model",
        "AutoTokenizer": [None, "code.Tokenizer"],
    }
    (folder / "code.py").write_text(CODE)
    change(folder / "config.json", model_type=model_type)
    change(folder / name, auto_map=names)
    with pytest.raises(
        ValueError, match=rf"carries code of its own \(auto_map in {name}\)"
    ) as refused:
        reward_model.load(folder)
    assert "load a copy of the folder without auto_map" in str(refused.value)
    assert not list(tmp_path.rglob("marker"))


class Marker:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("harmless", [True, False])
def test_a_folder_with_pickles_alone_is_refused_and_they_are_not_loaded(folder, tmp_path, harmless):
    state = load_file(folder / "model.safetensors")
    torch.save(state if harmless else Marker(tmp_path / "marker"), folder / "pytorch_model.bin")
    # Beside safetensors they are passed over.
    reward_model.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        ValueError, match=r"its weights in pickles \(pytorch_model\.bin\)"
    ) as refused:
        reward_model.load(folder)
    assert "convert them (from_pretrained and then save_pretrained" in str(refused.value)
    assert not (tmp_path / "marker").exists()


def test_a_hub_name_with_pickles_alone_says_so(monkeypatch):
    def lacking(*_, **__):
        raise OSError("x/y does not appear to ... and thus cannot be loaded with `safetensors`. P")

    # Without a network, the hub would be asked again and again for 20 seconds.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(loading.AutoModelForSequenceClassification, "from_pretrained", lacking)
    with pytest.raises(ValueError, match="'x/y' has its weights in pickles"):
        loading.load_classifier("x/y")


def test_commands_say_it_in_words(folder, tmp_path, capsys):
    change(folder / "config.json", auto_map={"AutoConfig": "code.Config"})
    for command in ("train", "score", "evaluate"):
        words = [command, "--model", str(folder), "--data", "simulator:5:1"]
        words += ["--output_dir" if command == "train" else "--output", str(tmp_path / command)]
        assert cli.main(words) == 1
        assert "posttrain: '" in capsys.readouterr().err


def test_a_head_with_two_labels_is_refused_in_words(tiny_checkpoint, tmp_path):
    two = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=2)
    two.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"weights of other shapes .* \(num_labels=1\)"):
        load_classifier(tmp_path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model_type": "unheard-of"}, "unheard-of"),
        ({"model_type": "vit"}, "no sequence classifier for a ViTConfig"),
        ({"hidden_size": "wide"}, "hidden_size"),
    ],
    ids=lambda value: str(value),
)
def test_a_kind_of_model_that_cannot_be_loaded_is_explained(folder, values, words):
    change(folder / "config.json", **values)
    with pytest.raises(UserError, match=words) as refused:
        load_classifier(folder)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_attention_that_is_unknown_is_the_users_to_mend(folder):
    with pytest.raises(UserError, match="nonsense"):
        load_classifier(folder, attn_implementation="nonsense")


def test_a_padding_token_without_an_embedding_is_refused(folder):
    tokenizer = load_tokenizer(folder)
    size = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    words = rf"padding token '\[PAD\]' .* has the id {size}, .* below {size} only; set --pad_token"
    with pytest.raises(UserError, match=words):
        reward_model.load(folder)
    reward_model.load(folder, pad_token="<|pad|>")


def test_a_class_without_a_decoder_is_refused_at_load(folder):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForMaskedLM(BertConfig(vocab_size=99, **sizes)).save_pretrained(folder)
    with pytest.raises(UserError, match="BertForSequenceClassification, which transformers has"):
        reward_model.load(folder)


def test_shards_of_fsdp_are_refused_with_a_remedy(folder):
    (folder / "pytorch_model_fsdp_0").mkdir()
    for path in folder.glob("*.*"):
        path.unlink()
    with pytest.raises(UserError, match=rf"shards of .* FSDP, .*--resume.* '{folder.parent}'"):
        reward_model.load(folder)


@pytest.mark.parametrize("name", ["v_head.summary.weight", "classifier.weight", "rm_head.bias"])
def test_a_head_under_another_name_is_named(folder, caplog, name):
    caplog.set_level("WARNING")
    model, _ = reward_model.load(folder)
    assert not caplog.text
    size = model.config.hidden_size
    weights = load_file(folder / "model.safetensors") | {name: torch.ones(1, size)}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    model, _ = reward_model.load(folder)
    assert reward_model.has_fresh_head(model)
    (said,) = caplog.messages
    assert said.startswith("1 weights of")
    assert "its score head is drawn anew" in said
    assert name in said


@pytest.mark.parametrize(
    "content", ["nonsense", "{}", "[]", '{"added_tokens": [], "model": {}}'], ids=str
)
def test_a_tokenizer_that_cannot_be_read_is_named(folder, content):
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(UserError) as refused:
        load_tokenizer(folder)
    assert str(folder) in str(refused.value)


def test_the_contents_of_a_checkpoint_are_those_of_its_weights_and_configuration(folder, tmp_path):
    before = contents(folder)
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert contents(copy) == before
    change(copy / "config.json", rms_norm_eps=0.5)
    assert contents(copy) != before
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert contents(folder) != before
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="holds no readable model"):
        contents(folder)


def test_the_contents_of_a_name_on_the_hub_are_its_commit(monkeypatch):
    monkeypatch.setattr(loading, "cached_file", lambda *_: f"/x/snapshots/0123abc/{_[1]}")
    assert contents("x/y") == "0123abc"
