"""``posttrain train``: whole runs of a tiny model, resumed, refused, and loaded by others."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    pipeline,
)

from posttrain import cli
from posttrain.commands.train import TrainSettings
from posttrain.mixing import counts_for, parse_mix
from posttrain.resuming import checkpoints_in

#: Ten steps of 24 groups in parts of different sizes, with a checkpoint after every third.
RUN = {
    "data": "simulator:300:3",
    "eval_fraction": 0.2,
    "groups_per_step": 24,
    "part_tokens": 400,
    "learning_rate": 2e-3,
    "save_steps": 3,
    "save_total_limit": 3,
    "logging_steps": 1,
    "report_to": "none",
    "disable_tqdm": "true",
    "resamples": 50,
    "processes": 1,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache of their own for the runs of this module, prepared data included."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(cache))


def options(model, output, **changes):
    """The command line of a run."""
    chosen = {"model": model, "output_dir": output} | RUN | changes
    named = [[f"--{name}", *str(value).split()] for name, value in chosen.items()]
    return ["train", *(word for pair in named for word in pair), "--use_cpu"]


def train(model, output, *flags, **changes):
    return cli.main([*options(model, output, **changes), *flags])


def weights(folder):
    return load_file(Path(folder) / "model.safetensors")


def assert_equal_weights(first, second):
    assert weights(first).keys() == weights(second).keys()
    for name, weight in weights(first).items():
        assert torch.equal(weights(second)[name], weight), name


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_checkpoint, cache):
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTTRAIN_CACHE", str(cache))
        assert train(tiny_checkpoint, folder) == 0
    return folder


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
    assert card.startswith("---\nbase_model:")
    assert f"{100 * account['evaluation']['accuracy']['estimate']:.1f} %" in card
    assert not list(trained.glob("*.bin"))
    assert not list(trained.glob(".model-partial"))


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


def run_and_kill(arguments, folder, *, after):
    """Start a run as a process of its own, and kill it once it has written a checkpoint."""
    process = subprocess.Popen(
        [sys.executable, "-m", "posttrain", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not (folder / f"checkpoint-{after}" / "seal.json").exists():
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_killed_run_goes_on_to_the_weights_of_one_that_was_not(
    trained, tiny_checkpoint, tmp_path
):
    folder = tmp_path / "killed"
    run_and_kill(options(tiny_checkpoint, folder), folder, after=3)
    assert not (folder / "config.json").exists()
    assert train(tiny_checkpoint, folder, "--resume") == 0
    assert_equal_weights(trained, folder)


@pytest.mark.parametrize("layout", ["llama3"])
def test_shuffled_responses_and_several_epochs_go_on_as_if_nothing_had_happened(
    tiny_checkpoint, tmp_path, layout
):
    changes = {"layout": layout, "num_train_epochs": 2, "groups_per_step": 48, "save_steps": 1}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(tiny_checkpoint, whole, **changes, save_total_limit=20) == 0
    steps = [int(path.name.split("-")[1]) for path in checkpoints_in(whole)]
    assert max(steps) == 10
    run_and_kill(options(tiny_checkpoint, killed, **changes), killed, after=2)
    assert train(tiny_checkpoint, killed, "--resume", **changes) == 0
    assert_equal_weights(whole, killed)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    trained, tiny_checkpoint, tmp_path, caplog, name
):
    folder = tmp_path / "damaged"
    assert train(tiny_checkpoint, folder) == 0
    (folder / "config.json").unlink()
    last, before = checkpoints_in(folder)[:2]
    damaged = last / name
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    caplog.clear()
    with caplog.at_level("INFO", logger="posttrain"):
        assert train(tiny_checkpoint, folder, "--resume") == 0
    assert f"not resuming from {last}: {damaged} has" in caplog.text
    assert f"resuming from {before}" in caplog.text
    assert_equal_weights(trained, folder)


def test_a_run_without_any_whole_checkpoint_starts_at_its_beginning(
    trained, tiny_checkpoint, tmp_path, caplog
):
    folder = tmp_path / "early"
    assert train(tiny_checkpoint, folder, max_steps=4) == 0
    (folder / "config.json").unlink()
    for path in checkpoints_in(folder):
        (path / "seal.json").unlink()
    with caplog.at_level("INFO", logger="posttrain"):
        assert train(tiny_checkpoint, folder, "--resume", max_steps=4) == 0
    assert "holds no whole checkpoint; starting at the beginning" in caplog.text


def refusal(capsys, code):
    """What a refused run says, in one piece."""
    assert code == 1
    error = capsys.readouterr().err
    message = error[error.rindex("posttrain: ") :]
    assert "Traceback" not in error
    return message


def test_a_folder_with_a_run_is_not_overwritten(trained, tiny_checkpoint, capsys):
    before = (trained / "model.safetensors").read_bytes()
    assert "holds a run already" in refusal(capsys, train(tiny_checkpoint, trained))
    assert (trained / "model.safetensors").read_bytes() == before


def test_a_run_is_resumed_with_its_own_settings_only(trained, tiny_checkpoint, capsys):
    message = refusal(
        capsys, train(tiny_checkpoint, trained, "--resume", learning_rate=1e-3, layout="separate")
    )
    assert "learning_rate (0.002 → 0.001)" in message
    assert "layout ('exact' → 'separate')" in message


def test_there_must_be_a_run_to_resume(tiny_checkpoint, tmp_path, capsys):
    message = refusal(capsys, train(tiny_checkpoint, tmp_path / "none", "--resume"))
    assert "holds no run to resume" in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": "no/such-folder/at-all"}, "is no folder, and the Hugging Face hub gave no such"),
        ({"data": "missing.jsonl"}, "missing.jsonl: cannot be read"),
        ({"data": "nothing"}, "POSTTRAIN_DATA"),
        ({"min_strength": 5}, "unknown min_strength 5"),
        ({"margins": "huge"}, "unknown margin table 'huge'"),
        ({"layout": "spiral"}, "unknown layout 'spiral'"),
        ({"max_tokens": 12}, "raise max_tokens or leave the group out"),
        ({"learning_rate": 1e30}, "training has diverged; lower learning_rate"),
        ({"gradient_accumulation_steps": 2}, "have no say here"),
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
    name = {"pad_token": "no padding token; set pad_token", "chat_template": "no chat template"}
    assert name[lacking] in message
    template = tmp_path / "template.jinja"
    template.write_text(AutoTokenizer.from_pretrained(tiny_checkpoint).chat_template)
    remedy = {"pad_token": {"pad_token": "<|pad|>"}, "chat_template": {"chat_template": template}}
    assert train(tmp_path / "model", tmp_path / "run", **remedy[lacking], max_steps=1) == 0


def test_a_full_disk_is_named_and_leaves_earlier_checkpoints_whole(
    trained, tiny_checkpoint, tmp_path
):
    # Files of this process may not grow beyond a limit below that of the optimiser's state.
    folder = tmp_path / "full"
    limit = (
        "import resource, signal, sys\n"
        "from posttrain import cli, trainer\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "save = trainer.Trainer._save_checkpoint\n"
        "def limited(self, *arguments):\n"
        "    if self.state.global_step == 6:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "    save(self, *arguments)\n"
        "trainer.Trainer._save_checkpoint = limited\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", limit, *map(str, options(tiny_checkpoint, folder))],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1, done.stderr
    assert f"{folder}/checkpoint-6 could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in checkpoints_in(folder)] == ["checkpoint-3"]
    assert not (folder / "config.json").exists()
    assert train(tiny_checkpoint, folder, "--resume") == 0
    assert_equal_weights(trained, folder)


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


def test_a_resumed_run_with_adapters_ends_at_the_same_weights(tiny_checkpoint, tmp_path):
    changes = {"lora_rank": 4, "max_steps": 6}
    assert train(tiny_checkpoint, tmp_path / "whole", **changes) == 0
    run_and_kill(
        options(tiny_checkpoint, tmp_path / "killed", **changes), tmp_path / "killed", after=3
    )
    assert train(tiny_checkpoint, tmp_path / "killed", "--resume", **changes) == 0
    assert_equal_weights(tmp_path / "whole", tmp_path / "killed")


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
    from posttrain.dataset import stored
    from posttrain.reading import write_groups

    _, groups = stored(["simulator:300:3"]).split(test_fraction=0.4, seed=0)
    write_groups(tmp_path / "held-out.jsonl", groups)
    command = ["evaluate", "--model", folder, "--data", tmp_path / "held-out.jsonl"]
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
    from posttrain.dataset import stored

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
        (path / "seal.json").unlink()
    assert train(tiny_checkpoint, folder, "--resume", **changes) == 0
    assert_equal_weights(mixed_run, folder)


def test_without_a_mix_all_data_are_trained_on_and_counted_by_domain(
    two_domains, tiny_checkpoint, trained, tmp_path
):
    folder = tmp_path / "joint"
    assert train(tiny_checkpoint, folder, data=two_domains, eval_fraction=0, max_steps=1) == 0
    account = json.loads((folder / "run.json").read_text())
    assert account["data"]["training"] == {
        "groups": 260,
        "pairs": 260,
        "groups in helpfulness": 200,
        "groups in safety": 60,
    }
    # Where all are of one domain, it says nothing.
    account = json.loads((trained / "run.json").read_text())
    assert set(account["data"]["training"]) == {"groups", "pairs"}


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
