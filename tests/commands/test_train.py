"""``posttrain train``: whole runs of a tiny model, refused, and loaded by others."""

import json
import math
import shutil

import pytest
import torch
from tiny_runs import RUN, assert_equal_weights, refusal, train, weights
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    pipeline,
)

from posttrain import cli
from posttrain.commands.train import TrainSettings
from posttrain.data.mixing import counts_for, parse_mix
from posttrain.models import reward_model
from posttrain.training.checkpoints import MANIFEST, checkpoints_in, verify_manifest


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(cache))


@pytest.fixture(scope="module")
def scores(trained, tmp_path_factory):
    """What ``posttrain score --layout separate`` says of forty responses, and these groups."""
    folder = tmp_path_factory.mktemp("scores")
    data = folder / "data.jsonl"
    assert cli.main(["data", "simulate", str(data), "--groups", "20", "--seed", "9"]) == 0
    output = folder / "scores.jsonl"
    command = ["score", "--model", str(trained), "--data", str(data), "--output", str(output)]
    assert cli.main([*command, "--layout", "separate"]) == 0
    found = {}
    for line in output.read_text().splitlines():
        record = json.loads(line)
        found[record["id"], record["response"]] = record["score"]
    records = [json.loads(line) for line in data.read_text().splitlines()]
    return found, records


def conversation(record, response):
    prompt = record["prompt"]
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    text = record[response]
    text = text if isinstance(text, str) else text[0]["content"]
    return [*turns, {"role": "assistant", "content": text}]


def test_a_run_leaves_a_model_a_card_and_an_account(trained):
    account = json.loads((trained / "run.json").read_text())
    assert account["steps"] == 10
    assert account["data"]["training"]["groups"] > 200
    assert account["evaluation"]["pairs"] == account["data"]["evaluation"]["pairs"]
    assert account["evaluation"]["accuracy"]["estimate"] > 0.5
    assert account["settings"]["layout"] == "exact"
    assert account["environment"]["versions"]["torch"] == torch.__version__
    card = (trained / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert f"{100 * account['evaluation']['accuracy']['estimate']:.1f} %" in card
    assert not list(trained.glob("*.bin"))
    assert not list(trained.glob(".model-partial"))


def test_the_final_evaluation_computes_no_more_tokens_at_once_than_training(
    tiny_checkpoint, tmp_path, monkeypatch
):
    tokens = []
    forward_scores = reward_model.forward_scores

    def watched(model, batch):
        tokens.append(batch.input_ids.numel())
        return forward_scores(model, batch)

    # The trainer has its own name for it.
    monkeypatch.setattr(reward_model, "forward_scores", watched)
    assert train(tiny_checkpoint, tmp_path / "run", max_steps=1) == 0
    assert len(tokens) > 2
    assert max(tokens) <= RUN["max_tokens_per_device"]


def test_stock_classes_give_the_same_scores(trained, scores):
    found, records = scores
    tokenizer = AutoTokenizer.from_pretrained(trained)
    model = AutoModelForSequenceClassification.from_pretrained(trained).eval()
    assert model.config.num_labels == 1
    for record in records:
        for response in ("chosen", "rejected"):
            text = tokenizer.apply_chat_template(conversation(record, response), tokenize=False)
            encoded = tokenizer(text, add_special_tokens=False, return_tensors="pt")
            logits = model(encoded["input_ids"]).logits
            # The stock class normalises in float32, ours in float64 throughout.
            assert logits.item() == pytest.approx(found[record["id"], response], abs=2e-6)


def test_a_pipeline_gives_the_same_scores_in_padded_batches(trained, scores):
    found, records = scores
    tokenizer = AutoTokenizer.from_pretrained(trained)
    scorer = pipeline("text-classification", str(trained), tokenizer=tokenizer, batch_size=7)
    names = [(record["id"], side) for record in records for side in ("chosen", "rejected")]
    texts = [
        tokenizer.apply_chat_template(conversation(record, side), tokenize=False)
        for record in records
        for side in ("chosen", "rejected")
    ]
    assert len({len(text.split()) for text in texts}) > 5
    for name, one in zip(names, scorer(texts, add_special_tokens=False), strict=True):
        assert one["score"] == pytest.approx(found[name], abs=2e-6)


def test_trl_gives_the_same_scores(trained, scores, tmp_path):
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    found, records = scores
    conversations = [
        {side: conversation(record, side) for side in ("chosen", "rejected")} for record in records
    ]
    tokenizer = AutoTokenizer.from_pretrained(trained)
    model = AutoModelForSequenceClassification.from_pretrained(trained)
    trainer = RewardTrainer(
        model,
        RewardConfig(
            str(tmp_path), use_cpu=True, report_to="none", bf16=False, per_device_eval_batch_size=5
        ),
        train_dataset=Dataset.from_list(conversations),
        eval_dataset=Dataset.from_list(conversations),
        processing_class=tokenizer,
    )
    logged = trainer.evaluate()
    chosen, rejected = (
        torch.tensor([found[record["id"], side] for record in records])
        for side in ("chosen", "rejected")
    )
    expected = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
    assert logged["eval_loss"] == pytest.approx(expected.item(), abs=1e-5)
    margin = (chosen - rejected).mean().item()
    assert logged["eval_margin"] == pytest.approx(margin, abs=1e-5)


def test_a_folder_with_a_run_is_not_overwritten(trained, tiny_checkpoint, capsys):
    before = (trained / "model.safetensors").read_bytes()
    assert "holds a run already" in refusal(capsys, train(tiny_checkpoint, trained))
    assert (trained / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": "no/such-folder/at-all"}, "is no folder, and the Hugging Face hub gave no such"),
        ({"data": "missing.jsonl"}, "missing.jsonl: cannot be read"),
        ({"data": "nothing"}, "POSTTRAIN_DATA"),
        ({"min_strength": 5}, "unknown min_strength 5"),
        ({"margins": "huge"}, "unknown margins 'huge'"),
        ({"layout": "spiral"}, "unknown layout 'spiral'"),
        ({"max_tokens": 12}, "leave such groups out (--skip_too_long)"),
        ({"learning_rate": 1e30}, "training has diverged; lower learning_rate"),
        # In its only step, after which no loss is computed.
        (
            {"learning_rate": 1e308, "warmup_steps": 0, "max_steps": 1, "eval_fraction": 0},
            "weights are not finite after step 1, such as",
        ),
        (
            {"learning_rate": 1e308, "warmup_steps": 0, "max_steps": 1, "save_strategy": "no"},
            "weights are not finite after step 1, such as",
        ),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor=0.1 has no effect here"),
        ({"gradient_accumulation_steps": 2}, "of TRL and groups_per_step say the same thing"),
        ({"pad_token": "<none>"}, "pad_token '<none>' is not in the vocabulary"),
        ({"pad_token": "<|end|>"}, "responses of"),
        ({"chat_template": "missing.jinja"}, "chat_template missing.jinja: cannot be read"),
        ({"lora_rank": 4, "top_layers": 1}, "exclude each other"),
        ({"top_layers": 9}, "the model has 2 layers"),
        ({"mix": "saftey"}, "unknown mix 'saftey'; give shares by domain, such as"),
        ({"mix": "safety"}, "no group has the domain 'safety' of the mix; there are: helpfulness"),
        ({"auxiliary_weight": 0.5}, "auxiliary_weight=0.5 needs labelled responses, and records"),
        ({"output": "/dev/null/run"}, "/dev/null"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_trained_is_refused_in_words_and_leaves_no_model(
    tiny_checkpoint, tmp_path, capsys, monkeypatch, changes, expected
):
    monkeypatch.delenv("POSTTRAIN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    changes = {"model": tiny_checkpoint, "output": folder} | changes
    assert expected in refusal(capsys, train(**changes))
    assert not (folder / "config.json").exists()
    assert not (folder / "model.safetensors").exists()


@pytest.mark.parametrize("lacking", ["pad_token", "chat_template"])
def test_a_tokenizer_without_padding_or_template_is_refused_with_the_remedy(
    tiny_checkpoint, tmp_path, capsys, lacking
):
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=1)
    setattr(tokenizer, lacking, None)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    message = refusal(capsys, train(tmp_path / "model", tmp_path / "run"))
    name = {"pad_token": "no padding token; set --pad_token", "chat_template": "no chat template"}
    assert name[lacking] in message
    template = tmp_path / "template.jinja"
    template.write_text(AutoTokenizer.from_pretrained(tiny_checkpoint).chat_template)
    remedy = {"pad_token": {"pad_token": "<|pad|>"}, "chat_template": {"chat_template": template}}
    assert train(tmp_path / "model", tmp_path / "run", **remedy[lacking], max_steps=1) == 0


def test_adapters_are_trained_with_the_head_and_merged(tiny_checkpoint, tmp_path, trained):
    folder = tmp_path / "lora"
    assert train(tiny_checkpoint, folder, lora_rank=4) == 0
    before = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=1)
    body = {name: weight for name, weight in before.state_dict().items() if "score" not in name}
    after = weights(folder)
    assert after.keys() == body.keys() | {"score.weight"}
    moved = {name for name, weight in body.items() if not torch.equal(after[name], weight)}
    assert moved == {name for name in body if name.endswith("proj.weight")}
    assert after["score.weight"].std() != before.score.weight.std()
    # Adapters of rank four change a matrix by one of rank four.
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.linalg.matrix_rank(after[name] - body[name], atol=1e-8) == 4


@pytest.fixture(scope="module")
def half_precision(tiny_checkpoint, tmp_path_factory):
    """The tiny model, stored in bfloat16 as most models are."""
    folder = tmp_path_factory.mktemp("half")
    AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.bfloat16).save_pretrained(
        folder
    )
    AutoTokenizer.from_pretrained(tiny_checkpoint).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("changes", "precision", "warned"),
    [
        ({}, torch.float32, False),
        ({"dtype": "bfloat16"}, torch.bfloat16, True),
        ({"lora_rank": 2}, torch.bfloat16, False),
    ],
)
def test_whole_weights_are_trained_in_single_precision_unless_told_otherwise(
    half_precision, tmp_path, caplog, changes, precision, warned
):
    assert train(half_precision, tmp_path / "run", max_steps=2, **changes) == 0
    layer = "model.layers.0.mlp.up_proj.weight"
    assert weights(tmp_path / "run")[layer].dtype == precision
    assert ("updates below a 256th of a weight are lost" in caplog.text) is warned


def test_a_bfloat16_model_scores_after_loading_as_it_was_evaluated(
    tiny_checkpoint, tmp_path, capsys
):
    folder = tmp_path / "half"
    assert train(tiny_checkpoint, folder, dtype="bfloat16", lora_rank=4, eval_fraction=0.4) == 0
    account = json.loads((folder / "run.json").read_text())
    capsys.readouterr()
    assert weights(folder)["score.weight"].dtype == torch.bfloat16
    held_out = tmp_path / "held-out.json"
    evaluated = account["evaluation"]["log_likelihood"]["estimate"]
    # The held-out groups are those of the same split of the same data.
    from posttrain.data.reading import write_groups
    from posttrain.data.store import stored

    _, groups = stored(["simulator:300:3"]).split(test_fraction=0.4, seed=0)
    write_groups(tmp_path / "held-out.jsonl", groups)
    command = ["evaluate", "--model", folder, "--data", tmp_path / "held-out.jsonl"]
    # In half precision, other batches round otherwise.
    command += ["--batch_tokens", RUN["max_tokens_per_device"]]
    assert cli.main([*map(str, command), "--output", str(held_out), "--resamples", "50"]) == 0
    again = json.loads(held_out.read_text())["log_likelihood"]["estimate"]
    assert again == pytest.approx(evaluated, abs=1e-6)


def test_part_of_the_layers_is_trained(tiny_checkpoint, tmp_path):
    assert train(tiny_checkpoint, tmp_path / "top", top_layers=1, max_steps=2) == 0
    before = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=1)
    after = weights(tmp_path / "top")
    still = {
        name for name, weight in before.state_dict().items() if torch.equal(after[name], weight)
    }
    assert any("layers.0." in name for name in still)
    assert not any("layers.1." in name for name in still)


@pytest.fixture(scope="module")
def two_domains(tmp_path_factory):
    """Files of 200 groups on helpfulness and of 60 on safety, as one value of ``--data``."""
    folder = tmp_path_factory.mktemp("domains")
    for domain, count in (("helpfulness", "200"), ("safety", "60")):
        command = ["data", "simulate", str(folder / f"{domain}.jsonl"), "--domain", domain]
        assert cli.main([*command, "--groups", count, "--seed", "4"]) == 0
    return f"{folder / 'helpfulness.jsonl'} {folder / 'safety.jsonl'}"


@pytest.fixture(scope="module")
def mixed_run(two_domains, tiny_checkpoint, tmp_path_factory, cache):
    """The folder of a run with Llama 2's mix for safety."""
    folder = tmp_path_factory.mktemp("runs") / "mixed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTTRAIN_CACHE", str(cache))
        assert train(tiny_checkpoint, folder, data=two_domains, mix="safety", save_steps=1) == 0
    return folder


def test_a_mix_trains_on_its_shares_and_evaluates_every_domain(mixed_run, two_domains):
    from posttrain.data.store import stored

    account = json.loads((mixed_run / "run.json").read_text())
    training, held_out = stored(two_domains.split()).split(test_fraction=0.2, seed=0)
    available = training.domains()
    # All of the safety data that is not held out, or one less, and a ninth of as many others.
    taken = counts_for(parse_mix("safety"), math.floor(available["safety"] / 0.9))
    assert available["safety"] - taken["safety"] in (0, 1)
    found = account["data"]["training"]
    assert account["settings"]["mix"] == "safety"
    assert found["groups"] == found["pairs"] == sum(taken.values())
    assert found["groups in safety"] == taken["safety"]
    assert found["groups in helpfulness"] == taken["helpfulness"]
    left_out = available["helpfulness"] - taken["helpfulness"]
    assert found["groups in helpfulness left out by the mix"] == left_out > 100
    rest = available["safety"] - taken["safety"]
    assert found.get("groups in safety left out by the mix", 0) == rest
    mixed = training.mixed(parse_mix("safety"), seed=0)
    assert account["data"]["fingerprint"] == mixed.fingerprint != training.fingerprint
    evaluated = account["data"]["evaluation"]
    assert evaluated["groups"] == len(held_out.rows)
    for name, count in held_out.domains().items():
        assert evaluated[f"groups in {name}"] == count
    assert set(account["evaluation"]["accuracy_by_domain"]) == {"helpfulness", "safety"}
    card = (mixed_run / "README.md").read_text()
    assert f"{left_out} groups in helpfulness left out by the mix" in card
    assert f"{taken['safety']} groups in safety" in card
    assert "| mix | `safety` |" in card


def test_a_run_with_a_mix_goes_on_with_the_same_mix_only(
    mixed_run, two_domains, tiny_checkpoint, tmp_path, capsys
):
    for mix in ("helpfulness", "safety:0.8,helpfulness:0.2"):
        code = train(tiny_checkpoint, mixed_run, "--resume", data=two_domains, mix=mix)
        assert f"mix ('safety' → '{mix}')" in refusal(capsys, code)
    code = train(tiny_checkpoint, mixed_run, "--resume", data=two_domains)
    assert "mix ('safety' → None)" in refusal(capsys, code)
    folder = tmp_path / "again"
    changes = {"data": two_domains, "mix": "safety", "save_steps": 1}
    assert train(tiny_checkpoint, folder, **changes) == 0
    (folder / "config.json").unlink()
    for path in checkpoints_in(folder)[:-1]:
        (path / "manifest.json").unlink()
    assert train(tiny_checkpoint, folder, "--resume", **changes) == 0
    assert_equal_weights(mixed_run, folder)


def test_without_a_mix_all_data_are_trained_on_and_counted_by_domain(
    two_domains, tiny_checkpoint, trained, tmp_path
):
    folder = tmp_path / "joint"
    settings = {"data": two_domains, "eval_fraction": 0, "max_steps": 1, "merge_prompts": False}
    assert train(tiny_checkpoint, folder, **settings) == 0
    account = json.loads((folder / "run.json").read_text())
    assert account["data"]["training"] == {
        "groups": 260,
        "pairs": 260,
        "groups in helpfulness": 200,
        "groups in safety": 60,
    }
    # Where all are of one domain, it says nothing.
    account = json.loads((trained / "run.json").read_text())
    assert not [name for name in account["data"]["training"] if name.startswith("groups in")]


def test_a_mix_of_records_without_a_domain_is_refused_with_one_of_them(
    two_domains, tiny_checkpoint, tmp_path, capsys
):
    record = {"id": "nameless", "prompt": "Why?", "chosen": "Because.", "rejected": "No."}
    (tmp_path / "bare.jsonl").write_text(json.dumps(record) + "\n")
    data = f"{two_domains} {tmp_path / 'bare.jsonl'}"
    code = train(tiny_checkpoint, tmp_path / "run", data=data, mix="safety", eval_fraction=0)
    message = refusal(capsys, code)
    assert "1 of 261 groups have no domain (the first is record 'nameless')" in message
    assert "set 'domain' in every record" in message


@pytest.mark.parametrize("mix", ["saftey", "safety:0.7,helpfulness:0.2", "safety:0.5,safety:0.5"])
def test_a_mix_that_is_none_is_refused_before_anything_is_read(mix):
    with pytest.raises(ValueError, match=f"mix '{mix}'"):
        TrainSettings(model="tiny", data=["missing.jsonl"], mix=mix)


def test_settings_come_from_a_file_and_options_win(tiny_checkpoint, tmp_path):
    config = tmp_path / "run.yaml"
    lines = {**RUN, "model": tiny_checkpoint, "data": ["simulator:300:3"], "use_cpu": True}
    config.write_text("\n".join(f"{name}: {value}" for name, value in lines.items()))
    folder = tmp_path / "run"
    command = ["train", "--config", config, "--output_dir", folder, "--max_steps", 1]
    assert cli.main(list(map(str, command))) == 0
    account = json.loads((folder / "run.json").read_text())
    assert (account["steps"], account["training"]["groups_per_step"]) == (1, 24)


def test_what_is_logged_is_there_for_tensorboard(tiny_checkpoint, tmp_path):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    folder = tmp_path / "run"
    assert train(tiny_checkpoint, folder, report_to="tensorboard", max_steps=3) == 0
    (file,) = folder.rglob("events.out.tfevents.*")
    steps = [
        event.step
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
        if value.tag == "train/loss"
    ]
    assert steps == [1, 2, 3]


def scored(folder, tmp_path):
    """Scores of some data by a folder, as ``posttrain score`` writes them."""
    output = tmp_path / "scores.jsonl"
    command = ["score", "--model", folder, "--data", "simulator:5:7", "--output", output]
    assert cli.main([*map(str, command)]) == 0
    return [json.loads(line)["score"] for line in output.read_text().splitlines()]


@pytest.mark.parametrize("changes", [{}, {"lora_rank": 4}], ids=str)
def test_a_checkpoint_is_scored_by_itself(tiny_checkpoint, tmp_path, changes):
    folder = tmp_path / "run"
    assert train(tiny_checkpoint, folder, save_steps=2, max_steps=2, **changes) == 0
    checkpoint = folder / "checkpoint-2"
    # The finished model is the last checkpoint, its adapters merged.
    assert scored(checkpoint, tmp_path) == pytest.approx(scored(folder, tmp_path), abs=1e-6)
    assert verify_manifest(checkpoint) is None
    listed = json.loads((checkpoint / MANIFEST).read_text())
    assert {"tokenizer.json", "chat_template.jinja"} <= listed.keys()


@pytest.mark.parametrize("top_layers", [0, 1])
def test_all_weights_of_what_was_an_adapter_are_trained(tiny_checkpoint, tmp_path, top_layers):
    first = tmp_path / "first"
    assert train(tiny_checkpoint, first, lora_rank=2, max_steps=3, save_steps=3) == 0
    moved = {}
    # The finished model is the adapter, merged.
    for name, start in (("merged", first), ("adapter", first / "checkpoint-3")):
        run = tmp_path / name
        assert train(start, run, max_steps=3, min_warmup_steps=0, top_layers=top_layers) == 0
        before = weights(first)
        moved[name] = {key for key, weight in weights(run).items() if (weight != before[key]).any()}
    assert "score.weight" in moved["adapter"]
    assert len(moved["adapter"]) == len(weights(first)) or top_layers
    assert moved["adapter"] == moved["merged"]


def test_training_goes_on_from_adapters(tiny_checkpoint, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(tiny_checkpoint, first, lora_rank=4, save_steps=9, max_steps=9) == 0
    adapter = first / "checkpoint-9"
    # A rate of zero leaves what was merged.
    assert train(adapter, second, max_steps=1, learning_rate=0) == 0
    assert scored(second, tmp_path) == pytest.approx(scored(adapter, tmp_path), abs=1e-6)
    before = weights(second)
    third = tmp_path / "third"
    assert train(adapter, third, lora_rank=2, max_steps=3, save_steps=3) == 0
    after = weights(third)
    name = "model.layers.0.mlp.up_proj.weight"
    assert 0 < torch.linalg.matrix_rank(after[name] - before[name], atol=1e-8) <= 2
    # Nothing would merge the adapter's own base for it.
    capsys.readouterr()
    options = ["--data", "simulator:5:7", "--output", str(tmp_path / "scores.jsonl")]
    code = cli.main(["score", "--model", str(third / "checkpoint-3"), *options])
    assert "which is an adapter itself" in refusal(capsys, code)


@pytest.mark.parametrize("architecture", ["gpt2", "bloom"])
def test_other_classes_are_trained_in_part_and_give_stock_scores(
    tiny_checkpoint, tmp_path, architecture
):
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    config = AutoConfig.for_model(
        architecture, vocab_size=len(tokenizer), hidden_size=16, n_head=2, n_layer=2
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    folder = tmp_path / "run"
    changes = {"top_layers": 1, "max_steps": 2, "layout": "separate"}
    assert train(tmp_path / "model", folder, **changes) == 0
    before = AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    after = weights(folder)
    still = {
        name for name, weight in before.items() if torch.equal(weight, after.get(name, weight))
    }
    assert any(".h.0." in name for name in still)
    assert not any(".h.1." in name or "ln_f.weight" in name for name in still)


def test_of_several_templates_the_default_one_is_read_and_all_are_kept(tiny_checkpoint, tmp_path):
    model, run = tmp_path / "model", tmp_path / "run"
    shutil.copytree(tiny_checkpoint, model)
    template = (model / "chat_template.jinja").read_text()
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = {"default": template, "rag": "{{ strftime_now(x) }}"}
    (model / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(model)
    assert train(model, run, max_steps=1) == 0
    assert AutoTokenizer.from_pretrained(run).chat_template == tokenizer.chat_template


def test_a_run_that_ends_within_its_warm_up_says_so(tiny_checkpoint, tmp_path, caplog):
    assert train(tiny_checkpoint, tmp_path / "run", max_steps=2) == 0
    assert "all 2 steps were warm-up" in caplog.text


def test_padding_goes_to_the_right_of_what_is_saved(tiny_checkpoint, tmp_path):
    # Some classes count positions from the beginning of a row, padding included.
    model, run = tmp_path / "model", tmp_path / "run"
    shutil.copytree(tiny_checkpoint, model)
    AutoTokenizer.from_pretrained(model, padding_side="left").save_pretrained(model)
    assert AutoTokenizer.from_pretrained(model).padding_side == "left"
    assert train(model, run, max_steps=1, save_steps=1) == 0
    for folder in (run, run / "checkpoint-1"):
        assert AutoTokenizer.from_pretrained(folder).padding_side == "right"
