"""The study of edited responses from end to end, on simulated and on human data."""

import math
from dataclasses import asdict, replace

import pandas as pd
import pytest

from posttrain.data.reading import write_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.evidence import records
from posttrain.studies.common import groups as study_groups
from posttrain.studies.edits import full
from posttrain.studies.edits.full import FullSettings, HumanFullSettings
from posttrain.studies.edits.heads import HeadSettings
from posttrain.studies.edits.keys import ArmName
from posttrain.studies.edits.outcome import ARMS, CONTRASTS
from posttrain.studies.edits.study import STUDY

SETTINGS = FullSettings(
    sizes=[12],
    shares=[0.5, 1.0],
    test_size=10,
    seeds=2,
    learning_rates=[1e-3, 1e-2],
    shared_learning_rate=1e-2,
    tuning_seeds=1,
    batch_size=8,
    groups=80,
    resamples=10,
)
HEADS = HeadSettings(
    sizes=[16],
    shares=[0.5, 1.0],
    seeds=2,
    folds=3,
    inner_folds=2,
    penalties=[0.03, 1.0],
    shared_penalty=1.0,
    layer=2,
    resamples=10,
)
TABLES = ["tuning", "metrics", "gains", "contrasts", "trends", "costs", "baselines"]


@pytest.fixture(scope="module")
def simulated(tiny_checkpoint):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_groups.embedded, "tiny", lambda: tiny_checkpoint)
        return STUDY.run("simulator", profile="test", settings=SETTINGS)


@pytest.fixture(scope="module")
def human(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    groups = [
        replace(group.ranked, cluster_id=f"topic {number // 2}")
        for number, group in enumerate(simulate(90, seed=3, edited_share=0.5))
    ]
    write_groups(folder / "mine.jsonl", groups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTTRAIN_DATA", str(folder))
        patch.setenv("POSTTRAIN_CACHE", str(folder / "cache"))
        patch.setattr(study_groups.embedded, "smollm2", lambda: tiny_checkpoint)
        return STUDY.run("mine", profile="test", settings=HEADS)


@pytest.mark.parametrize("name", ["simulated", "human"])
def test_a_record_has_every_cell_and_can_be_read_again(request, name, tmp_path):
    record = request.getfixturevalue(name)
    settings, size = {"simulated": (SETTINGS, 12), "human": (HEADS, 16)}[name]
    assert (record.study, record.profile) == ("edits", "test")
    assert record.settings == asdict(settings)
    assert list(record.tables) == TABLES
    metrics = record.tables["metrics"]
    cells = set(metrics[["arm", "size", "share"]].itertuples(index=False, name=None))
    assert cells == {(arm, size, share) for arm in ARMS for share in (0.5, 1.0)}
    assert set(record.tables["contrasts"]["contrast"]) == set(CONTRASTS)
    assert len(record.tables["costs"]) == len(cells)
    again = records.load(records.save(record, tmp_path))
    for table in TABLES:
        pd.testing.assert_frame_equal(
            again.tables[table], record.tables[table], rtol=1e-5, check_dtype=False
        )


def test_heads_that_ignore_edits_are_the_same_at_every_share(human):
    # They are fitted to their optimum, so it does not matter how long other arms would train.
    metrics = human.tables["metrics"]
    ignored = metrics[metrics["arm"] == ArmName.IGNORE]
    one, other = (
        ignored[ignored["share"] == share].drop(columns="share").reset_index(drop=True)
        for share in (0.5, 1.0)
    )
    pd.testing.assert_frame_equal(one, other)


def test_gold_is_measured_where_it_is_known(simulated, human):
    known = {}
    for record in (simulated, human):
        metrics = record.tables["metrics"]
        gold = metrics[metrics["metric"] == "gold"]["estimate"]
        known[record.source] = gold.notna().all()
        assert gold.notna().any() == gold.notna().all()
    assert known == {"simulator": True, "mine": False}


def test_groups_are_accounted_for(simulated, human):
    assert human.data["file"] == "mine.jsonl"
    # Every group is tested once.
    assert human.data["test groups"] == 90
    assert human.data["test groups with an edit"] == human.data["groups with an edit"] > 20
    assert simulated.data["test groups"] == 10


def test_the_source_decides_the_settings_unless_told_otherwise():
    assert STUDY.settings_for("simulator") is FullSettings
    assert STUDY.settings_for("simulator", "full") is FullSettings
    assert STUDY.settings_for("seeda") is STUDY.settings_for("seeda", "heads") is HeadSettings
    assert STUDY.settings_for("seeda", "full") is HumanFullSettings
    with pytest.raises(ValueError, match="whole models take seconds to train"):
        STUDY.settings_for("simulator", "heads")
    with pytest.raises(ValueError, match="unknown training 'magic'; known: heads, full"):
        STUDY.settings_for("seeda", "magic")


def test_runs_are_planned_by_the_names_of_their_records():
    found = STUDY.parse_runs(
        {
            "simulator": {"seeds": 2},
            "simulator-careless": {"editor_error": 0.2},
            "simulator-longer": {"epochs": 3},
            "seeda": {"folds": 4},
            "seeda-full": {"seeds": 2},
        }
    )
    assert [source for source, _ in found] == ["simulator"] * 3 + ["seeda"] * 2
    assert [type(settings) for _, settings in found] == [
        FullSettings, FullSettings, FullSettings, HeadSettings, HumanFullSettings,
    ]  # fmt: skip
    assert (found[0][1].seeds, found[1][1].editor_error, found[3][1].folds) == (2, 0.2, 4)
    assert found[2][1].epochs == 3
    for name, given in (("simulator-careless", {}), ("simulator", {"editor_error": 0.1})):
        with pytest.raises(ValueError, match=f"the run named '{name}' would give a record named"):
            STUDY.parse_runs({name: given})


def test_full_training_on_human_data_has_a_record_of_its_own(
    tiny_checkpoint, tmp_path, monkeypatch
):
    groups = [
        replace(group.ranked, cluster_id=f"topic {number // 2}")
        for number, group in enumerate(simulate(90, seed=3, edited_share=0.5))
    ]
    write_groups(tmp_path / "mine.jsonl", groups)
    monkeypatch.setenv("POSTTRAIN_DATA", str(tmp_path))
    monkeypatch.setattr(study_groups.embedded, "smollm2", lambda: tiny_checkpoint)
    settings = HumanFullSettings(
        arms=[ArmName.IGNORE, "all pairs"], sizes=[16], test_size=10, seeds=1, top_layers=1,
        learning_rates=[1e-3], shared_learning_rate=1e-3, resamples=5,
    )  # fmt: skip
    record = STUDY.run("mine", settings=settings)
    assert record.name == "edits-mine-full"
    assert record.data["test groups"] == 10
    costs = record.tables["costs"].set_index("arm")
    assert costs.loc["all pairs", "pairs"] > costs.loc[ArmName.IGNORE, "pairs"] == 16
    assert math.isnan(record.tables["tuning"]["accuracy"].iloc[0])


def test_finished_cells_are_not_trained_again(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(study_groups.embedded, "tiny", lambda: tiny_checkpoint)
    machine = records.machine()
    monkeypatch.setattr(records, "machine", lambda: machine | {"commit": "abc"})
    few = replace(SETTINGS, arms=[ArmName.IGNORE, "all pairs"], shares=[1.0])
    whole = STUDY.run("simulator", settings=few)
    trained = []
    true_train = full.train

    def interrupted(*arguments, **options):
        trained.append(options["seed"])
        if len(trained) == 5:
            raise KeyboardInterrupt
        return true_train(*arguments, **options)

    monkeypatch.setattr(full, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        STUDY.run("simulator", settings=few, cache_dir=tmp_path)
    again = STUDY.run("simulator", settings=few, cache_dir=tmp_path)
    # The first of two cells was finished: two rates tried, and two seeds at one or two rates.
    before = len(trained)
    STUDY.run("simulator", settings=few, cache_dir=tmp_path)
    assert len(trained) == before
    for name in TABLES:
        pd.testing.assert_frame_equal(again.tables[name], whole.tables[name])


@pytest.mark.parametrize("kind", [FullSettings, HeadSettings])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ["all pairs"]}, "arms must contain 'edits ignored' and only names of"),
        ({"arms": [ArmName.IGNORE, "magic"]}, r"arms must contain .* got edits ignored, magic"),
        ({"shares": [0.0]}, r"shares must lie above 0 and be at most 1, not \[0.0\]"),
        ({"shares": []}, "shares needs at least one value"),
        ({"sizes": []}, "sizes needs at least one value"),
        ({"sizes": [5, 0]}, r"sizes must be at least 1, not \[5, 0\]"),
        ({"seeds": 0}, "seeds must be at least 1, not 0"),
    ],
)
def test_settings_out_of_range_are_refused(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        kind(**changes)
