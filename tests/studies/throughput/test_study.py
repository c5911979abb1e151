"""The throughput study: every method trains on the same pairs, and its numbers add up."""

import math
import runpy
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import LlamaConfig

from posttrain.evidence import records
from posttrain.rows.layout import LAYOUTS, lay_out
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.studies.common.cost import forward_flops
from posttrain.studies.throughput import bench as throughput_bench
from posttrain.studies.throughput.bench import Bench, StepTimer, ThroughputSettings, random_llama
from posttrain.studies.throughput.methods import (
    CAUSAL,
    EXACT,
    METHODS,
    SEPARATE,
    SHARED,
    TRL,
    draw_groups,
    make_trainer,
    pair_set,
)
from posttrain.studies.throughput.study import matmul_flops, measure_memory, rounds, summarise

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "throughput.py"
WORDS = range(1, 30)


def group(prompt, *responses):
    return TokenizedGroup((5,) * prompt, tuple((6,) * size for size in responses))


@pytest.fixture
def bench(tiny_checkpoint):
    """A bench of two groups a step, whose lengths vary."""
    settings = ThroughputSettings(
        checkpoint=str(tiny_checkpoint),
        ratios=[2.0],
        responses=[3],
        response_tokens=6,
        spread=0.5,
        pack_length=100,
        memory_ratio=2.0,
    )
    return Bench.load(settings)


def first_batch(trainer):
    batch = next(iter(trainer.get_train_dataloader()))
    if "micro_batches" not in batch:
        return batch  # TRL's trainer
    (part,) = batch["micro_batches"]
    return part


def test_drawn_groups_have_exact_lengths_and_the_given_words():
    sizes = {"prompt_tokens": 7, "response_tokens": 4, "responses": 3}
    groups = draw_groups(5, **sizes, spread=0, words=[8, 9], seed=0)
    assert len(groups) == 5
    assert {len(found.prompt) for found in groups} == {7}
    assert {tuple(map(len, found.responses)) for found in groups} == {(4, 4, 4)}
    assert {word for found in groups for word in found.prompt} == {8, 9}
    assert groups == draw_groups(5, **sizes, spread=0, words=[8, 9], seed=0)
    assert groups != draw_groups(5, **sizes, spread=0, words=[8, 9], seed=1)


def test_spread_lengths_stay_within_their_share_of_the_average():
    groups = draw_groups(
        50, prompt_tokens=20, response_tokens=10, responses=2, spread=0.3, words=WORDS, seed=0
    )
    prompts = {len(found.prompt) for found in groups}
    assert min(prompts) == 14
    assert 22 < max(prompts) <= 26
    assert all(7 <= len(part) <= 13 for found in groups for part in found.responses)


def test_a_pair_is_two_full_rows():
    found = list(pair_set([TokenizedGroup((1, 2), ((3,), (4, 5), (6,)))]))
    assert found == [
        {"chosen_ids": [1, 2, 3], "rejected_ids": [1, 2, 4, 5]},
        {"chosen_ids": [1, 2, 3], "rejected_ids": [1, 2, 6]},
        {"chosen_ids": [1, 2, 4, 5], "rejected_ids": [1, 2, 6]},
    ]


def test_trl_trains_on_exactly_the_separate_rows_of_the_pairs(bench, tmp_path):
    groups = bench.groups(2.0, 3, steps=2)
    trainer = bench.trainer(TRL, groups, steps=1, folder=str(tmp_path))
    assert len(trainer.train_dataset) == len(groups) * 3
    batch = first_batch(trainer)
    rows = [
        ids[seen.bool()].tolist()
        for ids, seen in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    separate = lay_out(groups[:2], LAYOUTS["separate"], pad_token_id=0)
    ends = (separate.score_index % separate.input_ids.shape[1] + 1).tolist()
    expected = [ids[:end].tolist() for ids, end in zip(separate.input_ids, ends, strict=True)]
    pairs = [(first + i, first + j) for first in (0, 3) for i, j in combinations(range(3), 2)]
    assert rows == [expected[i] for i, _ in pairs] + [expected[j] for _, j in pairs]


def test_trl_keeps_long_pairs_and_computes_like_the_others(bench, tmp_path):
    trainer = bench.trainer(TRL, [group(1200, 3, 3)] * 2, steps=1, folder=str(tmp_path))
    assert len(trainer.train_dataset) == 2
    assert not trainer.args.bf16
    assert not trainer.args.gradient_checkpointing
    assert (
        trainer.args.optim
        == bench.trainer(EXACT, [group(3, 3, 3)], steps=1, folder=str(tmp_path)).args.optim
    )


@pytest.mark.parametrize("method", [SEPARATE, EXACT, SHARED], ids=lambda method: method.name)
def test_the_loss_of_a_batch_is_trls(bench, method, tmp_path):
    groups = bench.groups(2.0, 3, steps=1)
    losses = []
    for way in (TRL, method):
        trainer = bench.trainer(way, groups, steps=1, folder=str(tmp_path))
        losses.append(trainer.compute_loss(bench.model, first_batch(trainer)).item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    # An untrained head that told nothing apart would give this whatever the rows.
    assert losses[0] != pytest.approx(math.log(2), rel=1e-5)


def test_rows_are_arranged_as_their_method_says(bench, tmp_path):
    groups = bench.groups(2.0, 3, steps=1)
    rows = {
        method: len(
            first_batch(bench.trainer(method, groups, steps=1, folder=str(tmp_path)))["input_ids"]
        )
        for method in METHODS
    }
    assert rows == {TRL: 12, SEPARATE: 6, EXACT: 2, SHARED: 1, CAUSAL: 2}


def test_only_rows_that_need_a_mask_get_the_configured_attention(bench, tmp_path):
    found = {}
    for method in METHODS:
        make_trainer(
            method,
            bench.model,
            bench.tokenizer,
            [group(3, 2, 2)],
            groups_per_step=1,
            steps=1,
            pack_length=100,
            max_tokens_per_device=None,
            attention="eager",
            folder=str(tmp_path),
        )
        found[method] = bench.model.config._attn_implementation
    assert [method for method in METHODS if found[method] == "eager"] == [EXACT, SHARED]
    assert set(found.values()) == {"eager", "sdpa"}


def test_work_counts_tokens_slots_and_operations(bench):
    groups = [group(4, 2, 3), group(5, 1, 1), group(2, 2, 2), group(2, 2, 2)]
    config = bench.model.config
    work = {method: bench.work(method, groups) for method in METHODS}
    assert [step["tokens"] for step in work[TRL]] == [6 + 7 + 6 + 6, 16]
    assert [step["tokens"] for step in work[SEPARATE]] == [25, 16]
    assert [step["tokens"] for step in work[EXACT]] == [9 + 7, 12]
    assert [step["slots"] for step in work[TRL]] == [28, 16]
    assert [step["slots"] for step in work[EXACT]] == [18, 12]
    assert [step["slots"] for step in work[SHARED]] == [16, 12]
    assert all(step["pairs"] == 2 for steps in work.values() for step in steps)
    assert work[CAUSAL][1]["flops"] == 3 * forward_flops(config, 12, 2 * 6 * 7 / 2)
    assert work[EXACT][1]["flops"] == 3 * forward_flops(config, 12, 2 * (3 + 2 * (4 + 3)))


def test_the_timer_times_from_end_to_end_without_logging(monkeypatch):
    clock = iter([1.0, 2.0, 2.5, 5.0, 5.5, 6.0, 9.0, 9.25, 9.5])
    monkeypatch.setattr(throughput_bench, "now", lambda: next(clock))
    timer = StepTimer()
    for loss in (0.7, 0.6, 0.5):
        timer.on_pre_optimizer_step()
        timer.on_step_end()
        timer.on_log(logs={"loss": loss})
    timer.on_log(logs={"train_runtime": 9.0})
    assert timer.steps() == [
        {"seconds": 3.0, "update_seconds": 0.5, "loss": 0.6},
        {"seconds": 3.25, "update_seconds": 0.25, "loss": 0.5},
    ]


def test_all_methods_take_turns_on_the_same_groups(bench):
    steps = rounds(bench)
    settings = bench.settings
    assert len(steps) == len(METHODS) * settings.rounds * settings.steps
    order = steps[["round", "method"]].drop_duplicates()["method"].tolist()
    names = [method.name for method in METHODS]
    assert order == [*names, *reversed(names)]
    assert set(steps["step"]) == {1, 2}
    assert (steps["pairs"] == 6).all()
    assert (steps["slots"] >= steps["tokens"]).all()
    assert steps["seconds"].gt(steps["update_seconds"]).all()
    assert steps["update_seconds"].gt(0).all()
    # The same step has the same groups in every round.
    first, second = (steps[steps["round"] == number] for number in (0, 1))
    columns = ["method", "step"]
    sizes = [turn.set_index(columns)["tokens"].sort_index() for turn in (first, second)]
    assert sizes[0].equals(sizes[1])


@pytest.mark.parametrize("max_tokens_per_device", [None, 60])
def test_methods_that_compute_the_same_have_the_same_losses(bench, max_tokens_per_device):
    settings = replace(bench.settings, max_tokens_per_device=max_tokens_per_device)
    steps = rounds(replace(bench, settings=settings))
    losses = steps.sort_values(["round", "step"]).groupby("method")["loss"].apply(np.array)
    for values in losses:
        # A turn starts from the initial weights, so training repeats itself.
        first, second = np.split(values, 2)
        assert first.tolist() == second.tolist()
    for method in (SEPARATE, EXACT, SHARED):
        assert losses[method.name] == pytest.approx(losses[TRL.name], abs=1e-6)
    assert losses[CAUSAL.name] != pytest.approx(losses[TRL.name], abs=1e-6)
    # An untrained head that told nothing apart would give this whatever the rows.
    assert losses[TRL.name] != pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize(
    ("max_tokens_per_device", "sizes"),
    [
        # A pair takes 12 tokens, a group 18 in separate rows and 10 in one.
        (None, {TRL: [72], SEPARATE: [36], EXACT: [20], CAUSAL: [20]}),
        (60, {TRL: [36, 36], SEPARATE: [36], EXACT: [20], CAUSAL: [20]}),
        (35, {TRL: [24] * 3, SEPARATE: [18, 18], EXACT: [20], CAUSAL: [20]}),
        (5, {TRL: [12] * 6, SEPARATE: [18, 18], EXACT: [10, 10], CAUSAL: [10, 10]}),
    ],
)
def test_a_step_is_computed_in_parts(bench, tmp_path, max_tokens_per_device, sizes):
    bench = replace(
        bench, settings=replace(bench.settings, max_tokens_per_device=max_tokens_per_device)
    )
    groups = [group(4, 2, 2, 2)] * 4
    for method, expected in sizes.items():
        trainer = bench.trainer(method, groups, steps=2, folder=str(tmp_path))
        found = [
            part["input_ids"].numel()
            for batch in trainer.get_train_dataloader()
            for part in batch.get("micro_batches", [batch])
        ]
        assert found == expected * 2
        assert trainer.args.gradient_accumulation_steps == (len(expected) if method is TRL else 1)
        assert [step["slots"] for step in bench.work(method, groups)] == [sum(expected)] * 2


def test_speeds_are_medians_and_ratios_are_paired_by_round():
    def timed(method, tokens, *seconds):
        return [
            {
                "ratio": 1.0, "responses": 2, "method": method.name, "round": k // 2, "step": k % 2,
                "seconds": duration, "update_seconds": duration / 4, "pairs": 8, "tokens": tokens,
                "flops": 100 * tokens, "slots": 2 * tokens, "loss": 0.5 + k / tokens,
            }
            for k, duration in enumerate(seconds)
        ]  # fmt: skip

    steps = [
        *timed(TRL, 40, 8.0, 8.0, 16.0, 16.0),
        *timed(SEPARATE, 20, 4.0, 4.0, 4.0, 4.0),
        *timed(EXACT, 10, 2.0, 2.0, 4.0, 4.0),
    ]
    table = summarise(pd.DataFrame(steps), matmul_flops=1000.0)
    assert len(table) == 3 * 9
    exact = table[table["method"] == "exact row"].set_index("metric")
    found = exact[["estimate", "low", "high"]].apply(tuple, axis=1).to_dict()
    assert found == {
        "pairs per second": (3.0, 2.0, 4.0),
        "tokens per second": (3.75, 2.5, 5.0),
        "share of matmul peak": (0.375, 0.25, 0.5),
        "share of weight update": (0.25, 0.25, 0.25),
        "padding": (0.5, 0.5, 0.5),
        "speed-up over TRL": (4.0, 4.0, 4.0),
        "speed-up over separate rows": (1.5, 1.0, 2.0),
        "relative tokens per second": (0.75, 0.5, 1.0),
        "loss difference from TRL": pytest.approx((0.225, 0.225, 0.225)),
    }


def test_the_benchmark_prints_tables_and_saves_a_record(tiny_checkpoint, tmp_path, capsys):
    main = runpy.run_path(str(BENCHMARK))["main"]
    arguments = ["--checkpoint", str(tiny_checkpoint), "--response_tokens", "4", "--no_memory"]
    arguments += ["--ratios", "1", "2", "--responses", "2", "--steps", "1", "--rounds", "1"]
    arguments += ["--output", str(tmp_path), "--profile", "test", "--label", "pairs"]
    assert main(arguments) == 0
    record = records.load_all(tmp_path, "throughput")[0]
    assert record.source == f"{tiny_checkpoint.name}-pairs-cpu"
    assert record.profile == "test"
    assert record.settings["pack_length"] == 1024
    assert record.settings["dtype"] == "float32"
    assert record.data["matmul_flops"] > 0
    assert set(record.tables) == {"steps", "speed"}
    speed = record.tables["speed"]
    assert list(speed.columns) == [
        "ratio", "responses", "method", "metric", "estimate", "low", "high"
    ]  # fmt: skip
    assert len(speed) == 2 * len(METHODS) * 9
    assert (speed["low"] <= speed["high"]).all()
    printed = capsys.readouterr().out
    assert "exact, shared rows" in printed
    assert "throughput-" in printed


def test_the_benchmark_measures_a_random_llama(tmp_path, monkeypatch, capsys):
    smaller = LlamaConfig(
        hidden_size=64, num_hidden_layers=2, intermediate_size=128, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=500,
    )  # fmt: skip
    monkeypatch.setitem(throughput_bench.SHAPES, "Llama-3.2-1B", smaller)
    config = tmp_path / "llama.yaml"
    config.write_text(
        "checkpoint: llama-1b\nratios: [2.0]\nresponses: [3]\nresponse_tokens: 4\nsteps: 1\n"
        "rounds: 1\nmax_tokens_per_device: 64\ndtype: bfloat16\nmemory: false\n"
    )
    main = runpy.run_path(str(BENCHMARK))["main"]
    assert main(["--config", str(config), "--output", str(tmp_path)]) == 0, capsys.readouterr().err
    record = records.load(tmp_path / "throughput-llama-1b-cpu.json")
    assert record.settings["max_tokens_per_device"] == 64
    assert record.settings["dtype"] == "bfloat16"
    differences = record.tables["speed"].query("metric == 'loss difference from TRL'")
    exact = differences[differences["method"] == "exact row"]["estimate"].item()
    assert exact < 0.05


def test_the_random_llama_has_the_shape_of_the_real_one():
    model, tokenizer = random_llama(device=torch.device("meta"), dtype=torch.bfloat16, seed=0)
    # Llama-3.2-1B has 1,235,814,400 parameters; a reward model has a score head besides.
    assert model.num_parameters() == 1_235_814_400 + 2048
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert {weight.dtype for weight in model.model.parameters()} == {torch.bfloat16}
    assert model.score.weight.dtype == torch.float32


def test_the_benchmark_refuses_what_cannot_be_measured(capsys):
    main = runpy.run_path(str(BENCHMARK))["main"]
    assert main(["--pack_length", "100"]) == 1
    assert "pack_length must be at least 432" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"responses": [1, 2]}, "responses must be 2 or more"),
        ({"responses": []}, "responses must be 2 or more"),
        ({"ratios": [0.0]}, "ratios must be positive"),
        ({"spread": 1.0}, "spread must be at least 0 and below 1"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ThroughputSettings(**wrong)


def test_peak_memory_is_that_of_a_fresh_process(bench):
    table = measure_memory(bench, [EXACT])
    assert list(table.columns) == ["ratio", "responses", "method", "gigabytes"]
    assert table[["ratio", "responses", "method"]].to_numpy().tolist() == [[2.0, 3, "exact row"]]
    # Gradients and AdamW's two moments are there at least.
    assert table["gigabytes"][0] > 3 * 4 * bench.model.num_parameters() / 1e9


def test_without_linuxs_account_memory_is_refused(bench, monkeypatch):
    def missing(*_args, **_kwargs):
        raise FileNotFoundError

    fake = SimpleNamespace(read_text=missing)
    monkeypatch.setattr(throughput_bench, "Path", lambda _path: fake)
    with pytest.raises(ValueError, match="--no_memory"):
        bench.peak_memory(EXACT, [])


def test_the_matmul_peak_is_a_rate():
    assert matmul_flops(torch.float32, trials=1) > 1e8
