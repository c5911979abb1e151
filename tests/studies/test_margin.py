"""The study as a whole: a record that can be saved, read, and judged by every claim."""

from dataclasses import asdict, replace

import pytest

from posttrain import records
from posttrain.preferences import fingerprint
from posttrain.reading import write_groups
from posttrain.sources.simulator import simulate
from posttrain.studies import margin
from posttrain.studies.margin_claims import MARGIN_CLAIMS
from posttrain.studies.margin_full import FullSettings
from posttrain.studies.margin_heads import HeadSettings

FULL = FullSettings(
    sizes=[8, 16],
    seeds=1,
    learning_rates=[3e-3],
    batch_size=8,
    groups=80,
    resamples=10,
)
HEADS = HeadSettings(
    sizes=[40, 80],
    seeds=1,
    folds=3,
    inner_folds=2,
    penalties=[0.1, 1.0],
    shared_penalty=0.1,
    layer=2,
    resamples=10,
)


@pytest.fixture(scope="module")
def record(tiny_checkpoint):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(margin.checkpoints, "tiny", lambda: tiny_checkpoint)
        return margin.run(margin.SIMULATOR, profile="test", settings=FULL)


@pytest.fixture
def human_data(monkeypatch, tmp_path, tiny_checkpoint):
    groups = [group.ranked for group in simulate(150, seed=1)]
    write_groups(tmp_path / "mine.jsonl", groups)
    monkeypatch.setenv("POSTTRAIN_DATA", str(tmp_path))
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(margin.checkpoints, "smollm2", lambda: tiny_checkpoint)
    return groups


def test_the_source_decides_the_settings():
    assert margin.settings_for("simulator") is FullSettings
    assert margin.settings_for("ukpconvarg") is HeadSettings


@pytest.mark.parametrize(
    ("source", "settings", "name"),
    [("simulator", HEADS, "FullSettings"), ("ukpconvarg", FULL, "HeadSettings")],
)
def test_settings_of_the_other_class_are_refused(source, settings, name):
    with pytest.raises(ValueError, match=f"source '{source}' takes {name}"):
        margin.run(source, settings=settings)


def test_a_simulator_record_says_what_was_run(record):
    assert (record.study, record.source, record.profile) == ("margin", "simulator", "test")
    assert record.name == "margin-simulator"
    assert record.settings == asdict(FULL)
    drawn = [group.ranked for group in simulate(80, seed=FULL.data_seed)]
    assert record.data["groups"] == 80
    assert record.data["fingerprint"] == fingerprint(drawn)
    assert 0 < record.data["test pairs"] < 80
    assert record.environment["seconds"] > 0
    assert set(record.tables) == {
        "metrics", "gains", "filter", "steps", "trends", "sensitivity", "chosen", "reliability",
        "histogram", "baselines",
    }  # fmt: skip
    assert set(record.tables["metrics"]["size"]) == {8, 16}
    assert set(record.tables["baselines"]["baseline"]) == {"length only", "reachable"}


def test_every_claim_can_judge_a_record_that_was_saved(record, tmp_path):
    found = records.load(records.save(record, tmp_path))
    for claim in MARGIN_CLAIMS:
        before, (one,) = claim.judge([record])
        after, (other,) = claim.judge([found])
        assert before == after
        assert one.estimate == pytest.approx(other.estimate, rel=1e-5, abs=1e-9, nan_ok=True)


def test_claims_about_trends_are_inconclusive_after_a_run_of_one_size(record, tmp_path):
    size = {name: table for name, table in record.tables.items() if name != "trends"}
    trends = record.tables["trends"].assign(
        estimate=float("nan"), low=float("nan"), high=float("nan")
    )
    single = replace(record, tables=size | {"trends": trends})
    found = records.load(records.save(single, tmp_path))
    about_trends = next(claim for claim in MARGIN_CLAIMS if claim.key == "diminishing")
    assert about_trends.judge([found])[0] == "inconclusive"


def test_human_data_are_studied_with_heads(human_data):
    record = margin.run("mine", profile="test", settings=HEADS)
    assert record.name == "margin-mine"
    assert record.settings == asdict(HEADS)
    assert record.data == {
        "file": "mine.jsonl",
        "groups": 150,
        "fingerprint": fingerprint(human_data),
        "groups with a trimmed prompt": 0,
    }
    assert "penalty" in record.tables["chosen"]
    assert set(record.tables["metrics"]["size"]) == {40, 80}


def test_unrated_human_data_are_refused(human_data, tmp_path):
    write_groups(tmp_path / "mine.jsonl", [replace(group, strength=None) for group in human_data])
    with pytest.raises(ValueError, match="150 of 150 groups have no strength"):
        margin.run("mine", settings=HEADS)
