"""``make gpu-study`` at a tiny size on a CPU: the runs of its parameter file, what they fill."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from posttrain.data.reading import write_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.evidence import records, verdicts
from posttrain.models import embedded
from posttrain.studies.edits import claims as edits_claims
from posttrain.studies.edits import examples
from posttrain.studies.edits import study as edits
from posttrain.studies.margin import claims as margin_claims
from posttrain.studies.margin import study as margin
from posttrain.studies.packing import claims as packing_claims
from posttrain.studies.packing import rows
from posttrain.studies.packing import study as packing_study
from posttrain.studies.tradeoff import claims as tradeoff_claims
from posttrain.studies.tradeoff import study as tradeoff
from posttrain.studies.tradeoff.data import CONFLICTS, DOMAINS, HUMAN_SOURCES

ROOT = Path(__file__).parents[2]
MARGIN, PACKING, EDITS, TRADEOFF = (
    yaml.safe_load((ROOT / "notebooks" / "params" / "gpu" / f"{stem}.yaml").read_text())
    for stem in (
        "01_margin_ablation", "02_single_row_packing", "03_edited_responses",
        "04_helpfulness_and_safety",
    )
)  # fmt: skip
#: What a CPU needs changed, and no more: the same arms are trained and judged.
SMALL = {
    "gpu": False, "bf16": False, "seeds": 1, "resamples": 10, "batch_size": 16, "test_size": 16,
    "learning_rates": [1e-3],
}  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory, tiny_checkpoint):
    """Records of all runs of the file, by study, each under the name that it is saved as."""
    folder = tmp_path_factory.mktemp("data")
    groups = [group.ranked for group in simulate(120, seed=2, edited_share=0.6)]
    for name in ("seeda", "ukpconvarg", "finegrained_rlhf"):
        write_groups(folder / f"{name}.jsonl", groups)
    for number, name in enumerate(HUMAN_SOURCES):
        if name != "finegrained_rlhf":
            drawn = simulate(120, seed=number, domain=HUMAN_SOURCES[name][0], sensitive=0.5)
            write_groups(folder / f"{name}.jsonl", [group.ranked for group in drawn])
    # A prompt is unsafe or is not, whoever compares responses to it.
    conflicts = [
        replace(group.ranked, domain=DOMAINS[len(group.ranked.prompt[-1].content) % 2])
        for group in simulate(20, seed=9, multi_turn=0.0)
    ]
    write_groups(folder / f"{CONFLICTS}.jsonl", conflicts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTTRAIN_DATA", str(folder))
        patch.setenv("POSTTRAIN_CACHE", str(folder / "cache"))
        for name in ("tiny", "smollm2"):
            patch.setattr(embedded, name, lambda: tiny_checkpoint)
        made = [*_margin(), *_packing(), *_edits(), *_tradeoff()]
        for record in made:
            records.save(record, folder / "results")
        return {
            study: records.load_all(folder / "results", study)
            for study in {record.study for record in made}
        }


def _margin():
    shared = SMALL | {"sizes": [30], "shared_learning_rate": 1e-3}
    for source, settings in margin.STUDY.parse_runs(MARGIN["runs"], **shared):
        yield margin.STUDY.run(source, profile=MARGIN["profile"], settings=settings)


def _packing():
    small = SMALL | {"size": 30, "tuning_seeds": 1}
    for source, settings in packing_study.STUDY.parse_runs(PACKING["runs"], **small):
        yield packing_study.STUDY.run(source, profile=PACKING["profile"], settings=settings)


def _edits():
    shared = SMALL | {"sizes": [12], "shared_learning_rate": 1e-3}
    for source, settings in edits.STUDY.parse_runs(EDITS["runs"], **shared):
        yield edits.STUDY.run(source, profile=EDITS["profile"], settings=settings)
    small = {"gpu": False, "bf16": False, "size": 30, "test_size": 20, "batch_size": 8}
    for source, settings in examples.STUDY.parse_runs(EDITS["examples"], **small):
        yield examples.STUDY.run(source, profile=EDITS["profile"], settings=settings)


def _tradeoff():
    # Trained longer, because a model that ranks no better than chance cannot be calibrated.
    small = SMALL | {
        "arms": ["helpfulness only", "safety only", "joint, all data"], "size": 60, "epochs": 4,
        "learning_rates": [5e-3], "shared_learning_rate": 5e-3, "calibration_size": 40,
        "max_tokens": 128,
    }  # fmt: skip
    for source, settings in tradeoff.STUDY.parse_runs(TRADEOFF["runs"], **small):
        yield tradeoff.STUDY.run(source, profile=TRADEOFF["profile"], settings=settings)


def test_every_run_is_recorded_as_the_gpus(found):
    names = {record.name for study in found.values() for record in study}
    assert {
        "margin-ukpconvarg-full-gpu", "margin-seeda-full-gpu", "packing-seeda-gpu",
        "packing-ukpconvarg-gpu", "packing-finegrained_rlhf-gpu", "edits-seeda-full-gpu",
        "edits-finegrained_rlhf-full-gpu", "edit-examples-finegrained_rlhf-gpu",
        "tradeoff-human-full-gpu",
    } <= names  # fmt: skip
    assert all(name.endswith("-gpu") for name in names)


def test_the_gpu_column_is_filled(found):
    committed = {
        study: records.load_all(ROOT / "book" / "results", study)
        for study in ("margin", "packing", "edits", "tradeoff")
    }
    margins = verdicts.verdict_table(margin_claims.CLAIMS, committed["margin"] + found["margin"])
    assert (margins["GPU"] != "not run").any()
    trained = committed["packing"] + found["packing"]
    claims = [claim for claim in packing_claims.CLAIMS if claim.study == "packing"]
    (packed,) = verdicts.verdict_tables(claims, trained)
    assert (packed["GPU"] != "not run").all()
    edited = verdicts.verdicts_by_status(edits_claims.CLAIMS, committed["edits"] + found["edits"])
    judged = verdicts.verdicts_by_status(
        tradeoff_claims.CLAIMS, committed["tradeoff"] + found["tradeoff"]
    )
    for table in (edited, judged):
        assert table.apply(lambda row: row.astype(str).str.contains("GPU, ").any(), axis=1).any()


def test_all_of_it_is_trained_in_full_on_a_gpu_with_several_seeds():
    studies = (MARGIN, PACKING, EDITS, TRADEOFF)
    for given in (run for study in studies for run in study["runs"].values()):
        assert given["gpu"]
        assert given["bf16"]
        assert given["top_layers"] == 0
        assert given["seeds"] >= 3
    for given in studies:
        assert (given["profile"], given["save"]) == ("gpu", True)
        assert given["cache_dir"], "hours of training can be interrupted"
    rows.STUDY.parse_runs(PACKING["rows"])


def test_one_command_starts_it():
    done = subprocess.run(
        ["make", "-n", "gpu-study"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--params notebooks/params/gpu --output" in done.stdout


def test_without_a_gpu_it_says_so(tmp_path, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(embedded, "tiny", lambda: tiny_checkpoint)
    settings = margin.STUDY.settings_for("simulator")(
        gpu=True, groups=80, sizes=[20], learning_rates=[1e-3], shared_learning_rate=1e-3
    )
    with pytest.raises(ValueError, match="gpu is set, but torch finds no GPU"):
        margin.STUDY.run("simulator", settings=settings)
