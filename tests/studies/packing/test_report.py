"""The packing study's tables on the committed records: every shown number must be theirs."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from posttrain.evidence import records
from posttrain.evidence.claims import estimate
from posttrain.evidence.verdicts import listing, ordered, with_interval
from posttrain.studies.packing import answer as packing_answer
from posttrain.studies.packing import report
from posttrain.studies.packing.keys import RowName
from posttrain.studies.packing.outcome import ARMS, TESTS, own_test

RESULTS = Path(__file__).parents[3] / "book" / "results"


@pytest.fixture(scope="module")
def recorded():
    return ordered(records.load_all(RESULTS, "packing"))


@pytest.fixture(scope="module")
def untrained():
    return ordered(records.load_all(RESULTS, "rows"))


@pytest.fixture(scope="module")
def timed():
    return records.load_all(RESULTS, "throughput")


def changed(record, table, column, value):
    """The record with one column of one table set to a value."""
    part = record.tables[table].assign(**{column: value})
    return replace(record, tables=record.tables | {table: part})


def test_the_answer_quotes_the_records(recorded, timed):
    answer = packing_answer.answer(recorded, timed)
    for record in recorded:
        for tested in ("causal", RowName.SEPARATE):
            found = estimate(
                record.tables["differences"], trained="causal", tested=tested, metric="accuracy"
            )
            assert f"{with_interval(found)} points on `{record.source}`" in answer
        ranked = estimate(
            record.tables["matrix"], trained="causal, ranked", tested="causal", metric="accuracy"
        )
        assert with_interval(ranked, sign=False) in answer
    sizes = [f"{record.settings['size']:,}" for record in recorded]
    assert f"(95 %; trained on {listing(sizes)} groups)" in answer


def test_the_answer_adds_what_was_measured_again_on_the_same_device(recorded, timed):
    first = next(record for record in timed if record.source == "smollm2-cpu")
    again = replace(first, source="smollm2-again-cpu")
    elsewhere = replace(again, environment=first.environment | {"device": "a GPU"})
    found = estimate(
        first.tables["speed"], ratio=2.67, responses=3, method="exact row",
        metric="speed-up over TRL",
    )  # fmt: skip
    sentence = (
        f"and {found[0]:.2f} ({found[1]:.2f}–{found[2]:.2f}) times as fast as TRL's RewardTrainer."
    )
    assert sentence in packing_answer.answer(recorded, [first, again])
    assert sentence not in packing_answer.answer(recorded, [first, elsewhere])


def test_the_answer_needs_records_of_both_studies(recorded, timed):
    for given in (([], timed), (recorded, [])):
        with pytest.raises(ValueError, match="one of the throughput study"):
            packing_answer.answer(*given)


def test_every_arm_is_shown_in_its_own_rows(recorded):
    table = report.own_rows_table(recorded)
    for record in recorded:
        arms = report.arms_of(record)
        assert arms == [arm for arm in ARMS if arm in arms]
        assert list(table.loc[record.source].index) == arms
        for arm in arms:
            expected = report.accuracy(record, arm, own_test(arm))
            assert table.loc[(record.source, arm), "accuracy"] == expected


@pytest.mark.parametrize(
    ("inferior", "superior", "conclusion"),
    [
        (0.049, 0.049, "yes"),
        (0.049, 0.051, "not worse"),
        (0.051, 0.001, "not shown"),
        (np.nan, np.nan, "–"),
    ],
)
def test_both_tests_at_five_percent_make_the_conclusion(recorded, inferior, superior, conclusion):
    record = changed(recorded[0], "non-inferiority", "p inferior", inferior)
    record = changed(record, "non-inferiority", "p superior", superior)
    table = report.non_inferiority_table([record])
    assert set(table["within a point, on these test pairs"]) == {conclusion}
    trained = set(table.index.get_level_values("trained"))
    assert RowName.SEPARATE not in trained
    assert not any(arm.endswith("ranked") for arm in trained)


def test_a_p_value_below_a_thousandth_is_shown_as_such(recorded):
    record = changed(recorded[0], "non-inferiority", "p inferior", 0.0009)
    assert set(report.non_inferiority_table([record])["p, loses a point"]) == {"<0.001"}


def test_the_matrix_shows_every_cell_of_the_records_and_a_dash_elsewhere(recorded):
    few = next(record for record in recorded if record.source == "simulator")
    matrix = few.tables["matrix"]
    kept = matrix[matrix["tested"].isin([RowName.SEPARATE, "causal"])]
    few = replace(few, source="other", tables=few.tables | {"matrix": kept})
    given = [*recorded, few]
    table = report.matrix_table(given)
    known = {test for record in given for test in record.tables["matrix"]["tested"]}
    assert list(table.columns) == [test for test in TESTS if test in known]
    assert len(table) == sum(len(report.arms_of(record)) for record in given)
    for record in given:
        tested = set(record.tables["matrix"]["tested"])
        for arm in report.arms_of(record):
            for test, cell in table.loc[record.source, arm].items():
                expected = report.accuracy(record, arm, test) if test in tested else "–"
                assert cell == expected


def test_rounding_is_shown_as_below_a_bound_and_the_rest_as_it_is(untrained):
    record = untrained[-1]
    assert record.source == "simulator"
    for value, shown in ((9e-11, "below 1e-10"), (2e-10, "2e-10"), (0.123, "0.12")):
        table = report.equality_table([changed(record, "equality", "scores", value)])
        assert set(table["scores"]) == {shown}
        assert "separate rows" not in table.index.get_level_values("way")


def test_exact_rows_equal_separate_rows_in_every_record(untrained):
    table = report.equality_table(untrained)
    for way in ("exact row", "exact, shared rows", "separate, shared rows"):
        cells = table.xs(way, level="way").to_numpy().ravel()
        assert all(cell.startswith("below") for cell in cells)


@pytest.mark.parametrize("by", ["slot", "preceding tokens"])
def test_distances_come_by_slot_or_by_what_precedes(untrained, by):
    table = report.distance_table(untrained, by)
    for record in untrained:
        part = record.tables["distances"]
        assert set(part.loc[part["by"] == by, "value"].astype(str)) <= set(table.columns)
    first = {"slot": ["1", "2"], "preceding tokens": ["0", "1-16", "17-64"]}[by]
    assert [*table.columns][: len(first)] == first
    # Nothing stands before the first slot.
    assert table[{"slot": "1", "preceding tokens": "0"}[by]].str.startswith("0.00").all()


def test_tokens_and_padding_are_those_of_the_records(untrained):
    tokens = report.token_table(untrained)
    padding = report.padding_table(untrained)
    for record in untrained:
        for row in record.tables["tokens"].itertuples():
            assert tokens.loc[(record.source, row.responses), "saving"] == f"{row.saving:.2f}×"
        table = record.tables["padding"]
        separate = table.loc[table["method"] == "separate rows", "slots"].item()
        for row in table.itertuples():
            assert [*padding.loc[record.source, row.method]] == [
                f"{row.padding * 100:.1f}", f"{row.slots / separate:.2f}",
            ]  # fmt: skip


def test_what_was_trained_is_described_for_each_record(recorded):
    record = recorded[0]
    settings = {
        "top_layers": 6, "bf16": True, "size": 1400, "seeds": 3, "learning_rates": [0.1, 0.2],
    }  # fmt: skip
    human = replace(record, source="seeda", settings=settings, data={"test groups": 1200})
    whole = settings | {"top_layers": 0, "bf16": False, "seeds": 5}
    simulated = replace(human, source="simulator", settings=whole)
    rest = "1,400 training groups, 1,200 test groups, {} seeds, 2 learning rates to choose from"
    assert packing_answer.training_in_words([simulated, human]) == (
        f"seeda: the last 6 layers in bfloat16, {rest.format(3)}; simulator: the whole model, "
        f"{rest.format(5)}."
    )


def test_batches_are_described_once_for_each_way_of_making_them(untrained):
    record = replace(untrained[0], settings={"batch_size": 7, "pack_length": 2048})
    other = replace(record, settings={"batch_size": 9, "pack_length": 512})
    one = "7 groups, shared rows of at most 2,048 tokens"
    assert packing_answer.batches_in_words([record, record]) == f"Batches of {one}."
    both = f"Batches of {one} and 9 groups, shared rows of at most 512 tokens."
    assert packing_answer.batches_in_words([record, other]) == both


def test_cells_of_few_responses_are_left_out(untrained):
    record = changed(untrained[0], "distances", "responses", report.FEW)
    assert not (report.distance_table([record]) == "–").any(axis=None)
    table = record.tables["distances"]
    first = table["value"] == table.loc[table["by"] == "preceding tokens", "value"].iloc[0]
    few = changed(record, "distances", "responses", np.where(first, report.FEW - 1, 20))
    shown = report.distance_table([few])
    assert table.loc[first, "value"].iloc[0] not in shown.columns
    assert len(shown.columns) == len(report.distance_table([record]).columns) - 1


def test_order_noise_is_that_of_each_choice_alone(recorded):
    record = recorded[-1]
    sentence = packing_answer.order_in_words(record)
    for arm in ("causal attention", "running positions", "causal"):
        found = estimate(record.tables["matrix"], trained=arm, tested=arm, metric="order noise")
        assert with_interval(found, scale=1, digits=2, sign=False) in sentence
    learned = estimate(record.tables["contrasts"], contrast="shuffled - ranked, tested separately")
    assert f"{with_interval(learned, sign=False)} points behind" in sentence


@pytest.mark.parametrize(
    ("rates", "text"),
    [
        ({"separate": 1.0, "causal": 2.0}, r"tried, on `toy` separate took the lowest\.$"),
        ({"separate": 3.0, "causal": 3.0}, "on `toy` separate and llama3 took the highest"),
        (
            {"separate": 1.0, "causal": 3.0},
            "on `toy` separate took the lowest and on `toy` llama3 took the highest",
        ),
        ({"separate": 2.0, "causal": 2.0}, "^No arm's best learning rate lies at an end"),
        # In their own rows, nothing tells good rates from bad ones.
        ({"separate": 2.0, "causal, ranked": 1.0}, "^No arm's"),
    ],
)
def test_learning_rates_at_an_end_of_their_grid_are_named(rates, text):
    grid = [1.0, 2.0, 3.0]
    tuning = [(arm, rate, float(rate == best)) for arm, best in rates.items() for rate in grid]
    tables = {
        "tuning": pd.DataFrame(tuning, columns=["trained", "learning rate", "accuracy"]),
        "matrix": pd.DataFrame({"trained": [*rates]}),
    }
    record = records.Record("packing", "toy", "real", {"learning_rates": grid}, {}, tables)
    assert re.search(text, packing_answer.edges_in_words([record]))
    alone = replace(record, settings={"learning_rates": [1.0]})
    assert packing_answer.edges_in_words([alone]).startswith("No arm's")


def test_the_best_learning_rate_is_starred_and_single_rates_are_left_out(recorded):
    record = recorded[-1]
    table = report.tuning_table([record])
    assert all(sum(cell.endswith("*") for cell in row) >= 1 for row in table.to_numpy())
    single = replace(record, settings=record.settings | {"learning_rates": [1e-3]}, source="other")
    assert isinstance(report.tuning_table([record, single]), pd.DataFrame)
    assert "other" not in report.tuning_table([record, single]).index
