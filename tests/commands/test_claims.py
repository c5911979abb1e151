"""posttrain claims: what is listed, what one claim shows, and what is refused."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run

from posttrain import studies
from posttrain.evidence import records

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "book" / "results"


def test_all_claims_are_listed_with_their_verdicts(capsys):
    assert run("claims", "--results", RESULTS) == 0
    shown = capsys.readouterr().out
    for key, claim in studies.CLAIMS.items():
        verdict = claim.judge(records.load_all(RESULTS, claim.study))[0]
        (line,) = (line for line in shown.splitlines() if line.startswith(f"  {key} "))
        assert re.fullmatch(rf"  {key} +{verdict} +{re.escape(claim.statement)}", line)


@pytest.mark.parametrize("key", studies.CLAIMS)
def test_a_claim_shows_every_row_that_it_rests_on(key, capsys):
    claim = studies.CLAIMS[key]
    assert run("claims", key, "--results", RESULTS) == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in (claim.statement, claim.source, claim.paper))
    judges = claim.judged_by(records.load_all(RESULTS, claim.study))
    for record in judges:
        # What is printed for a record, up to the next one.
        part = shown.split(f"{record.name}.json: ")[1].split("\n\n")[0]
        assert claim.test(record).status in part
        for row, line in zip(claim.test.rows, part.splitlines()[1:], strict=True):
            table = record.tables[row.table]
            for column, value in row.place(record).items():
                table = table[table[column] == value]
            number = table[row.exact or "estimate"].item()
            assert line.startswith(f"  {row.table}: ")
            assert f": {number:.6g} [" in line
    assert shown.count(".json: ") == len(judges)


def test_the_places_that_are_named_hold_the_claim_and_its_test(capsys):
    for key, name in (("margin-diminishing", "_diminishing"), ("bimodal", "gain")):
        run("claims", key, "--results", RESULTS)
        shown = capsys.readouterr().out
        places = re.findall(r"(src/\S+\.py):(\d+)", shown)
        lines = [(ROOT / path).read_text().splitlines()[int(line) - 1 :] for path, line in places]
        assert lines[0][:2] == ["    Claim(", f'        "{key}",']
        assert lines[1][0].lstrip().startswith("def ")
        assert f"{name}(), {places[1][0]}" in shown


def test_a_folder_with_few_records_judges_what_it_can(tmp_path, capsys):
    records.save(records.load(RESULTS / "margin-seeda.json"), tmp_path)
    assert run("claims", "--results", tmp_path) == 0
    shown = capsys.readouterr().out
    assert re.search(r"bimodal +inconclusive", shown)
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
