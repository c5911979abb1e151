"""The benchmark of speed: every method trains on the same pairs, and its numbers add up."""

import math
from collections import Counter

import pandas as pd
import pytest
import throughput
import throughput_methods as ways
import torch
from throughput import Plan, summarise
from throughput_methods import METHODS, Bench, Setting
from throughput_workloads import Workload, apart, sample, trl_tokens
from transformers import LlamaConfig

from posttrain.data.preferences import Message, RankedGroup
from posttrain.data.reading import write_groups
from posttrain.evidence import records
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.studies.common.cost import forward_flops
from posttrain.training.collator import TrainingGroup, TrainingPair

EXACT = ("trl", "separate", "dense", "two-piece", "merged")


def group(prompt, *responses, pairs=((0, 1),)):
    return TrainingGroup(
        TokenizedGroup(prompt, responses), tuple(TrainingPair(*pair) for pair in pairs)
    )


A, B, C, D = (5, 6), (7,), (8, 9, 10), (11, 5)
#: Two prompts; the first's responses are compared again and again, also in contradiction.
GROUPS = [
    group((1, 2, 3), A, B),
    group((1, 2, 3), C, A, B, pairs=((0, 1), (0, 2))),
    group((1, 2, 3), B, A),
    group((1, 2, 3), D, C),
    group((4,), A, D),
]


@pytest.fixture(scope="module")
def bench(tiny_checkpoint):
    return Bench(Setting(str(tiny_checkpoint), "float32", 24))


def compared(rows):
    """How often each two sequences are compared."""
    return Counter(
        (*row["prompt"], -1, *row["responses"][winner], -1, *row["responses"][loser])
        for row in rows.records
        for winner, loser in zip(row["winners"], row["losers"], strict=True)
    )


@pytest.mark.parametrize("most_tokens", [10, 24, 1000])
def test_all_methods_train_on_the_same_pairs(most_tokens):
    expected = compared(METHODS["separate"].rows(GROUPS, most_tokens))
    assert sum(expected.values()) == 6
    for method in METHODS.values():
        assert compared(method.rows(GROUPS, most_tokens)) == expected


@pytest.mark.parametrize("most_tokens", [10, 24, 1000])
def test_methods_that_compute_the_same_have_the_same_loss(tiny_checkpoint, most_tokens):
    bench = Bench(Setting(str(tiny_checkpoint), "float32", most_tokens))
    turns = {
        name: bench.turn(METHODS[name], METHODS[name].rows(GROUPS, most_tokens))
        for name in (*EXACT, "causal")
    }
    losses = {name: turn.loss for name, turn in turns.items()}
    assert [losses[name] for name in EXACT] == pytest.approx([losses["trl"]] * 5, abs=1e-6)
    assert losses["causal"] != pytest.approx(losses["trl"], abs=1e-6)
    # An untrained head that told nothing apart would give this whatever the rows.
    assert losses["trl"] != pytest.approx(math.log(2), abs=1e-5)
    for name, turn in turns.items():
        method = METHODS[name]
        assert turn.slots >= method.work(method.rows(GROUPS, most_tokens))[0]
        assert turn.seconds > 0


def test_turns_start_from_the_same_weights(bench):
    rows = METHODS["merged"].rows(GROUPS, 24)
    assert bench.turn(METHODS["merged"], rows).loss == bench.turn(METHODS["merged"], rows).loss


def test_work_counts_tokens_and_visible_pairs(bench):
    found = {name: METHODS[name].work(METHODS[name].rows(GROUPS, 1000)) for name in METHODS}
    tokens = {name: tokens for name, (tokens, _) in found.items()}
    assert tokens["trl"] == trl_tokens(GROUPS) == 9 + 11 + 10 + 9 + 11 + 6
    assert tokens["separate"] == 9 + 15 + 9 + 11 + 6
    assert tokens["dense"] == tokens["two-piece"] == tokens["causal"] == 6 + 9 + 6 + 8 + 5
    # The prompt with A, B, C and D once, and the other one.
    assert tokens["merged"] == 3 + 2 + 1 + 3 + 2 + 5
    first = 6 + (2 * 3 + 3) + (3 + 1) + (3 * 3 + 6) + (2 * 3 + 3)
    assert found["merged"][1] == first + 1 + 2 * (2 + 3)
    assert bench.flops(*found["merged"]) == 3 * forward_flops(
        bench.model.config, 16, first + 1 + 2 * (2 + 3)
    )


def test_trls_trainer_reads_all_pairs_some_at_a_time(bench, tmp_path):
    # Pairs of 9 to 11 tokens, padded to 12: two fit at once.
    rows = METHODS["trl"].rows(GROUPS, 24)
    trainer = bench._trainer(METHODS["trl"], rows, str(tmp_path), None)
    assert trainer.args.per_device_train_batch_size == 2
    assert trainer.args.gradient_accumulation_steps == 3
    assert not trainer.args.bf16
    assert not trainer.args.gradient_checkpointing
    read = Counter((*row["chosen_ids"], -1, *row["rejected_ids"]) for row in trainer.train_dataset)
    assert read == Counter(
        (*tokens.prompt, *tokens.responses[0], -1, *tokens.prompt, *tokens.responses[1])
        for tokens in (pair.tokens for group in GROUPS for pair in apart(group))
    )


@pytest.mark.parametrize(
    ("name", "responses", "pairs", "tokens"),
    [
        ("pairs@7x3", 2, 1, 20),
        ("triples@7x3", 3, 3, 60),
        ("five@7x3", 5, 10, 200),
        ("many@7x3", 32, 31, 620),
    ],
)
def test_random_workloads_have_their_lengths(bench, name, responses, pairs, tokens):
    prompts = Workload.named(name).prompts(bench.model, bench.tokenizer, 0)
    assert len(prompts) == 64
    for groups in prompts:
        assert sum(len(group.pairs) for group in groups) == pairs
        assert trl_tokens(groups) == tokens
        ids = {ids for group in groups for ids in group.tokens.responses}
        assert len(ids) <= responses
        assert all(bench.tokenizer.pad_token_id not in response for response in ids)
    # Llama 3's lengths are meant where none are given.
    assert Workload.named("five").lengths == (5, 284, 758)
    assert Workload.named("triples@4096").is_long
    assert not Workload.named("triples@1024").is_long


def test_pairs_apart_are_those_of_the_group():
    (first, second) = apart(GROUPS[1])
    assert (first.tokens.responses, second.tokens.responses) == ((C, A), (C, B))


def test_a_sample_holds_whole_prompts_of_every_stratum():
    prompts = [[group((1,), A, B, pairs=((0, 1),) * count)] for count in (9, 1, 5, 1, 9, 5)]
    per_pair = trl_tokens(prompts[1])
    found = {
        most: sorted(len(group.pairs) for group in sample(prompts, most * per_pair))
        for most in (1, 5, 10, 15, 30, 1000)
    }
    # At least one, however little is allowed; one of the middle, if one.
    assert found[1] == found[5] == [5]
    assert found[10] == [1, 9] or found[10] == [5]
    assert found[15] == [1, 5, 9]
    assert found[30] == found[1000] == [1, 1, 5, 5, 9, 9]
    assert sum(found[10]) <= 10


def test_speeds_are_medians_and_ratios_are_formed_within_a_round():
    def timed(method, slots, *seconds):
        return [
            {"method": method, "round": k, "seconds": duration, "loss": 0.5 + k / slots,
             "slots": slots}
            for k, duration in enumerate(seconds)
        ]  # fmt: skip

    turns = pd.DataFrame(
        [
            *timed("trl", 80, 8.0, 16.0),
            *timed("separate", 40, 4.0, 4.0),
            *timed("merged", 20, 2.0, 4.0),
        ]
    )
    names = ("trl", "separate", "merged")
    table = summarise(
        turns,
        work=dict(zip(names, [(40, 0), (20, 0), (10, 0)], strict=True)),
        flops=dict.fromkeys(names, 1.0),
        whole=dict(zip(names, (1.0, 2.0, 5.0), strict=True)),
        pairs=8,
        trl_tokens=40,
        memory={"merged": 0.5},
    )
    merged = table[table["method"] == "merged"].set_index("metric")
    found = merged[["estimate", "low", "high"]].apply(tuple, axis=1).to_dict()
    assert found == {
        "pairs per second": (3.0, 2.0, 4.0),
        "tokens": (10, 10, 10),
        "padding": (0.5, 0.5, 0.5),
        "share of matmul peak": (0.375, 0.25, 0.5),
        "times fewer tokens than TRL": (4.0, 4.0, 4.0),
        "times fewer tokens than TRL, whole set": (5.0, 5.0, 5.0),
        "loss difference": pytest.approx((0.0375,) * 3),
        "speed-up over TRL": (4.0, 4.0, 4.0),
        "speed-up over separate rows": (1.5, 1.0, 2.0),
        "relative tokens per second": (0.75, 0.5, 1.0),
        "gigabytes": (0.5, 0.5, 0.5),
    }


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder with a set of two prompts, one of which is compared three times."""
    texts = ("because it is", "it is not", "nobody knows")
    comparisons = [(0, 1), (1, 2), (0, 2)]
    ask = (Message("user", "Why is it so?"),)
    groups = [
        RankedGroup(f"a{k}", ask, (texts[i], texts[j])) for k, (i, j) in enumerate(comparisons)
    ]
    groups.append(RankedGroup("b", (Message("user", "And you?"),), texts[1:]))
    write_groups(tmp_path / "mine.jsonl", groups)
    monkeypatch.setenv("POSTTRAIN_DATA", str(tmp_path))
    return tmp_path


def test_a_second_call_adds_what_is_missing(tiny_checkpoint, data, capsys):
    output = data / "results"
    few = ["--checkpoint", str(tiny_checkpoint), "--rounds", "1", "--seconds", "30"]
    few += ["--no_memory", "--output", str(output)]
    assert throughput.main([*few, "--workloads", "mine"]) == 0
    path = output / f"throughput-{tiny_checkpoint.name}.json"
    first = records.load(path)
    assert list(first.tables) == ["turns", "speed", "workloads"]
    (size,) = first.tables["workloads"].to_dict("records")
    assert (size["prompts"], size["records"], size["pairs"]) == (2, 4, 4)
    assert size["pairs of the whole set"] == 4
    speed = first.tables["speed"].set_index(["method", "metric"])["estimate"]
    # Causal rows are timed on random tokens only.
    assert set(first.tables["speed"]["method"]) == set(EXACT)
    for name in EXACT:
        assert speed[name, "loss difference"] < 1e-5
        of_all = speed[name, "times fewer tokens than TRL, whole set"]
        assert of_all == pytest.approx(speed[name, "times fewer tokens than TRL"])
    assert speed["merged", "tokens"] < speed["two-piece", "tokens"] < speed["trl", "tokens"]

    more = ["--seconds", "0.001", "--workloads", "mine", "pairs@6x3"]
    assert throughput.main([*few, *more, "--methods", "separate", "causal"]) == 0
    both = records.load(path)
    assert both.tables["workloads"]["workload"].tolist() == ["mine", "pairs@6x3"]
    kept = both.tables["turns"].query("workload == 'mine'").reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, first.tables["turns"], check_dtype=False)
    assert "mine: measured before" in capsys.readouterr().out

    other = ["--workloads", "pairs@6x3", "--max_tokens_per_device", "99"]
    assert throughput.main([*few, *other]) == 1
    assert "--output" in capsys.readouterr().err


def test_without_trl_its_trainer_is_left_out(bench, tiny_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ways, "RewardTrainer", None)
    few = ["--checkpoint", str(tiny_checkpoint), "--rounds", "1", "--seconds", "0.001"]
    few += ["--no_memory", "--output", str(tmp_path), "--methods", "trl", "separate", "merged"]
    assert throughput.main([*few, "--workloads", "pairs@6x3"]) == 0
    speed = records.load_all(tmp_path, "throughput")[0].tables["speed"]
    assert set(speed["method"]) == {"separate", "merged"}
    assert "speed-up over TRL" not in set(speed["metric"])
    assert "trl is not installed" in capsys.readouterr().out


def test_data_that_is_not_there_is_named(tiny_checkpoint, data, capsys):
    few = ["--checkpoint", str(tiny_checkpoint), "--output", str(data)]
    assert throughput.main([*few, "--workloads", "yours"]) == 1
    assert "no yours.jsonl" in capsys.readouterr().err


def test_long_prompts_are_computed_with_few_layers(tiny_checkpoint, monkeypatch):
    bench = Bench(Setting(str(tiny_checkpoint), "float32", 24, layers=1))
    assert len(bench.model.base_model.layers) == bench.model.config.num_hidden_layers == 1
    rows = [METHODS[name].rows(GROUPS, 24) for name in ("separate", "two-piece")]
    losses = [
        bench.turn(METHODS[name], part).loss
        for name, part in zip(("separate", "two-piece"), rows, strict=True)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_the_random_llama_has_the_shape_of_the_real_one():
    setting = Setting("llama-1b", "bfloat16", 24)
    model, tokenizer = ways._load(setting, torch.device("meta"))
    # Llama-3.2-1B has 1,235,814,400 parameters; a reward model has a score head besides.
    assert model.num_parameters() == 1_235_814_400 + 2048
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert {weight.dtype for weight in model.model.parameters()} == {torch.bfloat16}
    assert model.score.weight.dtype == torch.float32


def test_a_random_llama_is_measured_in_bfloat16(monkeypatch):
    smaller = LlamaConfig(
        hidden_size=64, num_hidden_layers=2, intermediate_size=128, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=500,
    )  # fmt: skip
    monkeypatch.setitem(ways.SHAPES, "Llama-3.2-1B", smaller)
    bench = Bench(Setting("llama-1b", "bfloat16", 24))
    plan = Plan(("trl", "separate", "merged"), rounds=1, seconds=0.001, memory=False)
    tables = throughput.measure(Workload.named("triples@6x3"), plan, bench, rate=1.0)
    losses = tables["turns"].set_index("method")["loss"]
    assert (losses - losses["trl"]).abs().max() < 0.05


def test_peak_memory_is_that_of_a_fresh_process(bench):
    found = ways.memory_alone(bench.setting, "two-piece", METHODS["two-piece"].rows(GROUPS, 24))
    # Gradients and AdamW's two moments are there at least.
    assert found > 3 * 4 * bench.model.num_parameters()
