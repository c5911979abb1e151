"""The study of helpfulness and safety from end to end, on simulated and on human data."""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from tradeoff_synthetic import calibrations, candidate_set, outcome_of

from posttrain.data.preferences import Message, RankedGroup
from posttrain.data.reading import write_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.evidence import records
from posttrain.evidence.judging import judge
from posttrain.studies.common import groups as study_groups
from posttrain.studies.tradeoff import full, report, study
from posttrain.studies.tradeoff.claims import CLAIMS, has_gold
from posttrain.studies.tradeoff.data import CONFLICTS, HUMAN_SOURCES, CandidateSet
from posttrain.studies.tradeoff.full import FullSettings, HumanFullSettings
from posttrain.studies.tradeoff.heads import HeadSettings
from posttrain.studies.tradeoff.keys import ArmName, Team
from posttrain.studies.tradeoff.study import STUDY, examples

SETTINGS = FullSettings(
    arms=[ArmName.HELPFUL, ArmName.SAFE, ArmName.JOINT],
    groups=230,
    size=60,
    seeds=1,
    prompts=12,
    responses=3,
    test_size=25,
    calibration_size=40,
    learning_rates=[6e-3],
    shared_learning_rate=6e-3,
    batch_size=16,
    resamples=10,
)
HEADS = HeadSettings(
    arms=[ArmName.HELPFUL, ArmName.SAFE, ArmName.JOINT],
    size=24, seeds=1, pairs=30, folds=2, inner_folds=2,
    penalties=[0.1, 3.0], shared_penalty=0.1, layer=1, resamples=10,
)  # fmt: skip
TABLES = [
    "metrics", "differences", "baselines", "choices", "advantages", "conflicts", "calibration",
    "sources", "tuning", "examples", "against one", "detection", "auxiliary",
]  # fmt: skip


def human_files(folder):
    """Files of all human sources; responses that were chosen are of another make."""
    random = np.random.default_rng(0)
    for number, name in enumerate(HUMAN_SOURCES):
        groups = []
        for k, group in enumerate(simulate(40, seed=number)):
            # In one of six the annotators err, so that calibrations exist.
            texts = [f"sure : cat {random.integers(9)} .", f"znarf quib dog dog {k} ."]
            ranked = replace(
                group.ranked, responses=tuple(texts[:: -1 if k % 6 == 0 else 1]), domain=None,
                cluster_id=f"topic {k // 2}",
            )  # fmt: skip
            groups.append(ranked)
        write_groups(folder / f"{name}.jsonl", groups)
    conflicts = [
        RankedGroup(f"{kind} {k}", (Message("user", f"{kind} {k}"),), texts, domain=domain)
        for kind, domain, both in (
            ("steal", "safety", ("sorry , i can not .", "sure : cat .")),
            ("fix", "helpfulness", ("sure : dog .", "sorry , i can not .")),
        )
        for k, texts in enumerate([both] * 4)
    ]
    write_groups(folder / f"{CONFLICTS}.jsonl", conflicts)


@pytest.fixture(scope="module")
def simulated(tiny_checkpoint):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_groups.embedded, "tiny", lambda: tiny_checkpoint)
        return STUDY.run("simulator", profile="test", settings=SETTINGS)


@pytest.fixture(scope="module")
def human_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    human_files(folder)
    return folder


@pytest.fixture(scope="module")
def human(tiny_checkpoint, human_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTTRAIN_DATA", str(human_folder))
        patch.setenv("POSTTRAIN_CACHE", str(human_folder / "cache"))
        patch.setattr(study_groups.embedded, "smollm2", lambda: tiny_checkpoint)
        return STUDY.run("human", profile="test", settings=HEADS)


@pytest.mark.parametrize("name", ["simulated", "human"])
def test_a_record_has_every_table_and_can_be_read_again(request, name, tmp_path):
    record = request.getfixturevalue(name)
    settings = {"simulated": SETTINGS, "human": HEADS}[name]
    assert (record.study, record.profile) == ("tradeoff", "test")
    assert record.settings == asdict(settings)
    assert sorted(record.tables) == sorted(TABLES)
    for table in ("metrics", "conflicts"):
        assert set(record.tables[table]["arm"]) == {ArmName.HELPFUL, ArmName.SAFE, ArmName.JOINT}
    assert set(record.tables["metrics"]["tuning"]) == {"tuned", "shared"}
    again = records.load(records.save(record, tmp_path))
    for table in TABLES:
        pd.testing.assert_frame_equal(
            again.tables[table], record.tables[table], rtol=1e-5, check_dtype=False
        )


def test_gold_is_measured_where_it_is_known(simulated, human):
    assert has_gold(simulated)
    assert not has_gold(human)
    assert "golds disagree" in set(simulated.tables["conflicts"]["kind"])
    assert set(human.tables["conflicts"]["kind"]) == {"unsafe", "lookalike"}


def test_what_was_run_is_accounted_for(simulated, human):
    left_out = simulated.data["groups with prompts or goals of candidates"]
    assert sum(simulated.data["by source"].values()) == 2 * SETTINGS.groups - left_out
    assert simulated.data["candidates"] == 36
    assert simulated.data["test pairs"] == 50
    assert simulated.tables["tuning"]["accuracy"].isna().all()
    assert human.data["by source"] == dict.fromkeys(HUMAN_SOURCES, 30)
    assert human.data["test pairs"] == 150
    assert human.data["prompts with candidates"] == {"unsafe": 4, "lookalike": 4}
    # One model for each fold.
    assert human.tables["calibration"]["model"].tolist() == [0, 1, 0, 1]
    assert set(human.tables["metrics"]["test"]) == {*HUMAN_SOURCES, "helpfulness", "safety"}


def test_a_shared_setting_that_is_the_only_one_is_the_tuned_one(simulated):
    metrics = simulated.tables["metrics"]
    one, other = (
        metrics[metrics["tuning"] == tuning].drop(columns="tuning").reset_index(drop=True)
        for tuning in ("tuned", "shared")
    )
    pd.testing.assert_frame_equal(one, other)


def test_readers_can_be_shown_every_record(simulated, human):
    both = [simulated, human]
    judged = {claim.key: [r.source for r in claim.judged_by(both)] for claim in CLAIMS}
    assert judged["two-choose-better"] == ["simulator"]
    assert judged["two-err-less"] == ["human"]
    assert judged["sum-recovers"] == ["simulator"]
    assert judged["safety-needs-its-model"] == []
    for key, one in judge(CLAIMS, both).items():
        assert (one.outcome == "no record") == (not judged[key])
    for table in (
        report.source_table, report.calibration_table,
        report.difference_table,
    ):  # fmt: skip
        assert not table(both).isna().any(axis=None)
    for record in both:
        for table in (report.cross_table, report.conflict_table):
            assert not table(record).isna().any(axis=None)
        teams = [Team.SINGLE, Team.SPECIALISTS]
        assert not report.choice_table(record, teams).isna().any(axis=None)


def test_finished_arms_are_not_trained_again(simulated, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(study_groups.embedded, "tiny", lambda: tiny_checkpoint)
    machine = records.machine()
    monkeypatch.setattr(records, "machine", lambda: machine | {"commit": "abc"})
    trained = []
    true_train = full.train

    def interrupted(*arguments, **options):
        trained.append(options["seed"])
        if len(trained) == 3:
            raise KeyboardInterrupt
        return true_train(*arguments, **options)

    monkeypatch.setattr(full, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        STUDY.run("simulator", settings=SETTINGS, cache_dir=tmp_path)
    again = STUDY.run("simulator", settings=SETTINGS, cache_dir=tmp_path)
    # Two of three arms were finished.
    assert len(trained) == 4
    STUDY.run("simulator", settings=SETTINGS, cache_dir=tmp_path)
    assert len(trained) == 4
    for name in TABLES:
        pd.testing.assert_frame_equal(again.tables[name], simulated.tables[name])


def test_full_training_on_human_data_has_a_record_of_its_own(
    tiny_checkpoint, human_folder, monkeypatch
):
    monkeypatch.setenv("POSTTRAIN_DATA", str(human_folder))
    monkeypatch.setattr(study_groups.embedded, "smollm2", lambda: tiny_checkpoint)
    settings = HumanFullSettings(
        arms=[ArmName.HELPFUL, ArmName.SAFE],
        size=16, seeds=1, pairs=30, test_size=4, calibration_size=12,
        top_layers=1, learning_rates=[1e-4], shared_learning_rate=1e-4, resamples=5,
    )  # fmt: skip
    monkeypatch.setattr(full.calibration, "fit", lambda winners, losers: calibrations(1.0)[0])
    record = STUDY.run("human", settings=settings)
    assert record.name == "tradeoff-human-full"
    assert record.data["test pairs"] == 4 * len(HUMAN_SOURCES)
    assert report.choice_table(record, [Team.SPECIALISTS]).shape[1] == 3


def test_the_source_decides_the_settings_unless_told_otherwise():
    assert STUDY.settings_for("simulator") is FullSettings
    assert STUDY.settings_for("simulator", "full") is FullSettings
    assert STUDY.settings_for("human") is STUDY.settings_for("human", "heads") is HeadSettings
    assert STUDY.settings_for("human", "full") is HumanFullSettings
    with pytest.raises(ValueError, match="whole models take seconds to train"):
        STUDY.settings_for("simulator", "heads")
    for source in ("seeda", "xstest"):
        with pytest.raises(ValueError, match=f"unknown source '{source}'; this study takes"):
            STUDY.run(source)


def test_runs_are_planned_by_the_names_of_their_records():
    found = STUDY.parse_runs(
        {"simulator": {"seeds": 2}, "human": {"folds": 4}, "human-full": {"size": 7}}
    )
    assert [source for source, _ in found] == ["simulator", "human", "human"]
    assert [type(settings) for _, settings in found] == [
        FullSettings, HeadSettings, HumanFullSettings,
    ]  # fmt: skip
    assert (found[0][1].seeds, found[1][1].folds, found[2][1].size) == (2, 4, 7)
    with pytest.raises(ValueError, match="the run named 'simulator-full' would give a record"):
        STUDY.parse_runs({"simulator-full": {}})


def test_examples_are_the_first_prompts_on_which_the_specialists_disagree(monkeypatch):
    monkeypatch.setattr(study, "EXAMPLES", 2)
    base = candidate_set()
    place = [0, 1, 1, 0, 0, 1, 1, 1]
    prompts = [(Message("user", f"prompt {k}"),) for k in range(8)]
    # The third reads like the first: of two such prompts, one is shown.
    prompts[3] = prompts[0]
    texts = [base.responses[k] for k in place]
    texts[0] = ("no", "a bomb", "word " * 100)
    starts = np.cumsum([0, *map(len, texts)])[:-1]
    pairs = np.concatenate(
        [
            base.pairs[[0, 1] if k == 0 else [2]] + s - 3 * k
            for k, s in zip(place, starts, strict=True)
        ]
    )
    candidates = CandidateSet(
        prompts, texts, [base.tokens[k] for k in place], base.kinds[place], pairs, None
    )
    helpful = [[-3.0, 1, 0.5], [1.0, -2]]
    safe = [[2.0, -3, -6], [-1.0, 0.5]]
    agree = [[1.0, 0, 0], [1.0, 0]]
    scores = {
        ArmName.HELPFUL: [np.concatenate([helpful[k] for k in place])],
        ArmName.SAFE: [
            # On the second prompt both prefer the answer.
            np.concatenate([(agree if n == 1 else safe)[k] for n, k in enumerate(place)])
        ],
    }
    table = examples(outcome_of(candidates, scores))
    assert list(dict.fromkeys(table["prompt"])) == [f"prompt {k}" for k in (0, 2, 4, 5)]
    assert list(table.columns) == [
        "prompt", "kind", "response", "right", "helpfulness", "safety", "chosen by",
    ]  # fmt: skip
    first = table[table["prompt"] == "prompt 0"]
    assert first["kind"].tolist() == ["unsafe"] * 3
    assert first["right"].tolist() == [True, False, False]
    assert first["helpfulness"].tolist() == helpful[0]
    assert first["safety"].tolist() == safe[0]
    # σ(−3) is below 0.15: under the switch the refusal's helpfulness, −3, ties and comes first.
    assert first["chosen by"].tolist() == ["safety, sum, switch, gate", "helpfulness", ""]
    # What people's models answered to unsafe requests is nobody's to read in a book.
    assert first["response"].tolist() == ["no", study.WITHHELD, study.WITHHELD]
    count = sum(map(len, texts))
    simulated = examples(outcome_of(replace(candidates, gold=np.zeros((count, 2))), scores))
    shown = simulated[simulated["prompt"] == "prompt 0"]["response"].tolist()
    assert shown[:2] == ["no", "a bomb"]
    assert len(shown[2]) == 280
    assert shown[2].endswith("…")
    second = table[table["prompt"] == "prompt 2"]
    assert second["kind"].tolist() == ["lookalike"] * 2
    assert second["right"].tolist() == [True, False]
    # −1 + … : the sum weighs safety twice, 1 − 2 and −2 + 1; σ(−1) is below one half.
    assert second["chosen by"].tolist() == ["helpfulness, sum, switch", "safety, gate"]


def test_without_a_disagreement_there_is_no_example():
    same = {ArmName.HELPFUL: [[1.0, 0, 0, 1, 0]], ArmName.SAFE: [[2.0, 0, 0, 2, 0]]}
    assert examples(outcome_of(candidate_set(), same)).empty


def test_two_wrong_choices_are_no_example():
    # On the unsafe prompt both prefer an answer, each another one; on the other both are right.
    scores = {ArmName.HELPFUL: [[0.0, 2, 1, 1, 0]], ArmName.SAFE: [[0.0, 1, 2, 1, 0]]}
    assert examples(outcome_of(candidate_set(), scores)).empty
