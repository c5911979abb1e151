"""posttrain claims: what is listed, what one claim shows, and what is refused."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run

from posttrain import studies
from posttrain.evidence import records, verdicts
from posttrain.studies.claims import judge_all

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "book" / "results"


def test_all_claims_are_listed_with_what_the_verdict_rests_on(capsys):
    assert run("claims", "--results", RESULTS) == 0
    lines = capsys.readouterr().out.splitlines()
    for key, one in judge_all(RESULTS).items():
        (place,) = (n for n, line in enumerate(lines) if line.startswith(f"  {key} "))
        statement = re.escape(one.claim.statement)
        assert re.fullmatch(rf"  {key} +{one.outcome} +{statement}", lines[place])
        if one.pooled:
            told = lines[place + 1]
            assert verdicts.pooled(one) in told
            assert all(source.source in told for source in one.pooled.sources)
            assert f"detectable {verdicts.detectable(one)}, p {verdicts.p_value(one)}" in told


@pytest.mark.parametrize("key", studies.CLAIMS)
def test_a_claim_shows_every_row_that_it_rests_on(key, capsys):
    claim = studies.CLAIMS[key]
    assert run("claims", key, "--results", RESULTS) == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in (claim.statement, claim.source, claim.quantity))
    assert f"src/{claim.path.split('src/')[1]}:{claim.place[1]}" in shown
    judges = claim.judged_by(records.load_all(RESULTS, claim.study))
    for record in judges:
        # What is printed for a record, up to the next one.
        part = shown.split(f"{record.name}.json: ")[1].split("\n\n")[0]
        line, row = part.splitlines()[1], claim.rule.row
        table = record.tables[row.table]
        for column, value in row.place(record).items():
            table = table[table[column] == value]
        number = table[row.exact or "estimate"].item()
        assert line.startswith(f"  {row.table}: ")
        assert f": {number:.6g} [" in line
    assert shown.count(".json: ") == len(judges)


def test_the_place_that_is_named_holds_the_claim(capsys):
    run("claims", "bimodal", "--results", RESULTS)
    ((path, line),) = re.findall(r"(src/\S+\.py):(\d+)", capsys.readouterr().out)
    lines = (ROOT / path).read_text().splitlines()[int(line) - 1 :]
    assert lines[:2] == ["    Claim(", '        "bimodal",']


def test_a_folder_with_few_records_judges_what_it_can(tmp_path, capsys):
    records.save(records.load(RESULTS / "margin-seeda.json"), tmp_path)
    assert run("claims", "--results", tmp_path) == 0
    shown = capsys.readouterr().out
    assert re.search(r"bimodal +cannot tell", shown)
    assert re.search(r"no-loss +no record", shown)
    assert run("claims", "no-loss", "--results", tmp_path) == 0
    assert "posttrain study packing" in capsys.readouterr().out


def test_an_unknown_claim_is_refused_with_its_likes(capsys):
    assert run("claims", "diminishing", "--results", RESULTS) == 1
    told = capsys.readouterr().err
    assert "margin-diminishing" in told
    assert "edits-diminishing" in told


def test_a_folder_without_records_is_refused_with_the_option_to_pass(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert run("claims", "--results", folder) == 1
        told = capsys.readouterr().err
        assert str(folder) in told
        assert "--results" in told


def test_claims_are_listed_without_heavy_modules():
    code = (
        "import sys; import posttrain.commands.claims\n"
        "assert not {'torch', 'transformers', 'trl', 'datasets', 'sklearn'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_two_claims_share_a_key():
    keys = [claim.key for claims in studies.SUBJECTS.values() for claim in claims]
    assert sorted(keys) == sorted(studies.CLAIMS)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", key) for key in keys)


def test_claims_are_of_studies_that_exist():
    # Speed is recorded by benchmarks/throughput.py.
    known = {*studies.STUDIES, "throughput"}
    assert {claim.study for claim in studies.CLAIMS.values()} <= known
