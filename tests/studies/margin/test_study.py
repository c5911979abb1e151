"""The study as a whole: a record that can be saved, read, and judged by every claim."""

from dataclasses import asdict, replace

import pandas as pd
import pytest

from posttrain.data.preferences import fingerprint
from posttrain.data.reading import write_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.evidence import records
from posttrain.evidence.judging import judge
from posttrain.studies.common import groups as study_groups
from posttrain.studies.margin import full, study
from posttrain.studies.margin.claims import CLAIMS
from posttrain.studies.margin.full import FullSettings, HumanFullSettings
from posttrain.studies.margin.heads import HeadSettings

FULL = FullSettings(
    sizes=[8, 16],
    seeds=1,
    learning_rates=[3e-3],
    batch_size=8,
    groups=80,
    resamples=10,
)
HUMAN = HumanFullSettings(
    sizes=[40],
    test_size=30,
    seeds=1,
    top_layers=1,
    learning_rates=[1e-3, 1e-2],
    shared_learning_rate=1e-3,
    batch_size=8,
    resamples=10,
)
TABLES = {
    "metrics", "gains", "filter", "steps", "trends", "sensitivity", "chosen", "reliability",
    "histogram", "baselines", "interactions", "controls",
}  # fmt: skip
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
        patch.setattr(study_groups.embedded, "tiny", lambda: tiny_checkpoint)
        return study.STUDY.run("simulator", profile="test", settings=FULL)


@pytest.fixture(scope="module")
def human_data(tmp_path_factory, tiny_checkpoint):
    """Groups of a file that poses as human data."""
    folder = tmp_path_factory.mktemp("human")
    groups = [group.ranked for group in simulate(150, seed=1)]
    write_groups(folder / "mine.jsonl", groups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTTRAIN_DATA", str(folder))
        patch.setenv("POSTTRAIN_CACHE", str(folder / "cache"))
        patch.setattr(study_groups.embedded, "smollm2", lambda: tiny_checkpoint)
        yield groups


@pytest.fixture(scope="module")
def of_whole_models(human_data):
    """Record of whole models trained on human data; how many groups each was, and the recipe."""
    trained = []
    true_train = full.train

    def train(checkpoint, groups, layout, recipe, **options):
        trained.append((len(groups), recipe))
        return true_train(checkpoint, groups, layout, recipe, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full, "train", train)
        return study.STUDY.run("mine", profile="gpu", settings=HUMAN), trained


@pytest.fixture
def interrupted(monkeypatch):
    """Interrupts the seventh training, once; lists the learning rates of all."""
    machine = records.machine()
    monkeypatch.setattr(records, "machine", lambda: machine | {"commit": "abc"})
    trained = []
    true_train = full.train

    def train(*arguments, **options):
        trained.append(options["learning_rate"])
        if len(trained) == 7:
            raise KeyboardInterrupt
        return true_train(*arguments, **options)

    monkeypatch.setattr(full, "train", train)
    return trained


def test_the_source_decides_the_settings_unless_told_otherwise():
    assert study.STUDY.settings_for("simulator") is FullSettings
    assert study.STUDY.settings_for("simulator", "full") is FullSettings
    assert study.STUDY.settings_for("ukpconvarg") is HeadSettings
    assert study.STUDY.settings_for("ukpconvarg", "heads") is HeadSettings
    assert study.STUDY.settings_for("ukpconvarg", "full") is HumanFullSettings


def test_runs_are_planned_by_the_names_of_their_records():
    found = study.STUDY.parse_runs(
        {"simulator": {"seeds": 2}, "seeda": {"folds": 4}, "seeda-full": {"top_layers": 0}}
    )
    assert found == [
        ("simulator", FullSettings(seeds=2)),
        ("seeda", HeadSettings(folds=4)),
        ("seeda", HumanFullSettings(top_layers=0)),
    ]
    with pytest.raises(
        ValueError, match=r"run named 'simulator-full' would .*'simulator'; name it"
    ):
        study.STUDY.parse_runs({"simulator-full": {}})


@pytest.mark.parametrize(
    ("source", "settings", "name"),
    [
        ("simulator", HEADS, "FullSettings"),
        ("simulator", HUMAN, "FullSettings"),
        ("ukpconvarg", FULL, "HeadSettings or HumanFullSettings"),
    ],
)
def test_settings_of_the_other_class_are_refused(source, settings, name):
    with pytest.raises(ValueError, match=f"source '{source}' takes {name}"):
        study.STUDY.run(source, settings=settings)


def test_a_simulator_record_says_what_was_run(record):
    assert (record.study, record.source, record.profile) == ("margin", "simulator", "test")
    assert record.name == "margin-simulator"
    assert record.settings == asdict(FULL)
    drawn = [group.ranked for group in simulate(80, seed=FULL.data_seed)]
    assert record.data["groups"] == 80
    assert record.data["fingerprint"] == fingerprint(drawn)
    assert 0 < record.data["test pairs"] < 80
    assert record.environment["seconds"] > 0
    assert set(record.tables) == TABLES
    assert set(record.tables["metrics"]["size"]) == {8, 16}
    assert set(record.tables["baselines"]["baseline"]) == {"length only", "reachable"}


def test_every_claim_can_judge_a_record_that_was_saved(record, tmp_path):
    found = records.load(records.save(record, tmp_path))
    before, after = (judge(CLAIMS, [one]) for one in (record, found))
    for key, one in before.items():
        assert one.outcome == after[key].outcome
        assert one.voices[0].shown == pytest.approx(
            after[key].voices[0].shown, rel=1e-5, abs=1e-9, nan_ok=True
        )


def test_a_trend_that_was_not_measured_informs_nobody(record, tmp_path):
    size = {name: table for name, table in record.tables.items() if name != "trends"}
    trends = record.tables["trends"].assign(
        estimate=float("nan"), low=float("nan"), high=float("nan")
    )
    single = replace(record, tables=size | {"trends": trends})
    found = records.load(records.save(single, tmp_path))
    about_trends = next(claim for claim in CLAIMS if claim.key == "margin-diminishing")
    assert judge([about_trends], [found])["margin-diminishing"].outcome == "uninformative"


def test_human_data_are_studied_with_heads(human_data):
    record = study.STUDY.run("mine", profile="test", settings=HEADS)
    assert record.name == "margin-mine"
    assert record.settings == asdict(HEADS)
    assert record.data == {
        "file": "mine.jsonl",
        "groups": 150,
        "fingerprint": fingerprint(human_data),
        "clusters": len({group.cluster_id for group in human_data}),
        "groups with a trimmed prompt": 0,
    }
    assert "penalty" in record.tables["chosen"]
    assert set(record.tables["metrics"]["size"]) == {40, 80}


def test_whole_models_are_trained_on_human_data_if_asked_for(human_data, of_whole_models, tmp_path):
    record, trained = of_whole_models
    assert (record.name, record.source) == ("margin-mine-full-gpu", "mine-full")
    assert record.settings == asdict(HUMAN)
    assert record.data == {
        "file": "mine.jsonl",
        "groups": 150,
        "fingerprint": fingerprint(human_data),
        "tokenisation": {},
        "test pairs": 30,
        "clusters": 30,
    }
    assert set(record.tables) == TABLES
    assert set(record.tables["metrics"]["size"]) == {40}
    assert "learning rate" in record.tables["chosen"]
    # Nobody knows what can be reached.
    assert set(record.tables["baselines"]["baseline"]) == {"length only"}
    # By arm, each rate is tried on fewer pairs than it is trained on.
    assert len(trained) == 11 * 4
    assert all(recipe is HUMAN for _, recipe in trained)
    assert all(size == 40 for size, _ in trained[2:4])
    assert all(size < 40 for size, _ in trained[:2])
    found = records.load(records.save(record, tmp_path))
    judged = judge(CLAIMS, [found])
    # One size has no trend.
    assert [key for key, one in judged.items() if one.outcome == "no record"] == [
        "margin-diminishing"
    ]


def test_finished_runs_are_not_trained_again(of_whole_models, interrupted, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        study.STUDY.run("mine", settings=HUMAN, cache_dir=tmp_path / "finished")
    assert len(interrupted) == 7
    resumed = study.STUDY.run("mine", settings=HUMAN, cache_dir=tmp_path / "finished")
    # Six runs were kept; those of all eleven arms are two rates tried and two reported.
    assert len(interrupted) == 7 + 11 * 4 - 6
    again = study.STUDY.run("mine", settings=HUMAN, cache_dir=tmp_path / "finished")
    assert len(interrupted) == 7 + 11 * 4 - 6
    whole, _ = of_whole_models
    for name in TABLES:
        pd.testing.assert_frame_equal(resumed.tables[name], whole.tables[name], check_exact=True)
        pd.testing.assert_frame_equal(again.tables[name], whole.tables[name], check_exact=True)


def test_unrated_human_data_are_refused(human_data, tmp_path, monkeypatch):
    monkeypatch.setenv("POSTTRAIN_DATA", str(tmp_path))
    write_groups(tmp_path / "mine.jsonl", [replace(group, strength=None) for group in human_data])
    with pytest.raises(ValueError, match="150 of 150 groups have no strength"):
        study.STUDY.run("mine", settings=HEADS)
    with pytest.raises(ValueError, match="150 of 150 groups have no strength"):
        study.STUDY.run("mine", settings=HUMAN)
