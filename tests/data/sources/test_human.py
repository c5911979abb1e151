"""Human data: found under the folder that the variable names, the untouched original first."""

import gzip
import json

import pytest
from ukp_original import write_original

from posttrain.data.notes import Notes
from posttrain.data.preferences import fingerprint
from posttrain.data.reading import read_groups
from posttrain.data.sources import human, named
from posttrain.data.sources.originals.registry import ORIGINALS

RECORD = {
    "id": "one",
    "prompt": "Cats or dogs?",
    "chosen": "Converted.",
    "rejected": "Dogs.",
    "strength": 2,
}


@pytest.fixture
def base(monkeypatch, tmp_path):
    monkeypatch.setenv("POSTTRAIN_DATA", str(tmp_path))
    return tmp_path


def write_jsonl(path, *records):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_variable_is_named(monkeypatch, value):
    monkeypatch.delenv("POSTTRAIN_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("POSTTRAIN_DATA", value)
    with pytest.raises(
        ValueError, match=r"POSTTRAIN_DATA is not set: set it to the folder .*book/data.md"
    ):
        human.load("ukpconvarg")


def test_a_variable_that_names_no_folder_is_refused(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "gone", tmp_path / "file"):
        monkeypatch.setenv("POSTTRAIN_DATA", str(path))
        with pytest.raises(ValueError, match=f"POSTTRAIN_DATA={path} is not a folder"):
            human.folder()


@pytest.mark.parametrize("name", ["ukpconvarg", "mine"])
def test_missing_data_is_named(base, name):
    with pytest.raises(ValueError, match=rf"{base}, which holds no {name}\.jsonl\.gz, .*raw/"):
        human.load(name)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_a_converted_file_is_read(base, suffix):
    path = base / f"mine{suffix}"
    write_jsonl(path, RECORD)
    groups, source = human.load("mine")
    assert groups == read_groups(path).groups
    assert [group.chosen for group in groups] == ["Converted."]
    assert source == {"file": path.name, "groups": 1, "fingerprint": fingerprint(groups)}


def test_what_is_not_used_of_a_converted_file_is_noted(base):
    write_jsonl(base / "mine.jsonl", RECORD | {"votes": 3})
    notes = Notes()
    assert len(list(named.iterate("mine", notes=notes))) == 1
    assert notes == Notes(columns={"votes": 1})


def test_a_bad_record_is_named(base):
    write_jsonl(base / "mine.jsonl", RECORD, RECORD | {"id": "two", "strength": 5})
    with pytest.raises(ValueError, match=r"mine\.jsonl.*2.*strength"):
        human.load("mine")


def test_the_original_wins_over_a_converted_file(base):
    write_jsonl(base / "ukpconvarg.jsonl.gz", RECORD)
    assert human.load("ukpconvarg")[0][0].chosen == "Converted."
    write_original(base)
    groups, source = human.load("ukpconvarg")
    assert [(group.id, group.chosen, group.strength) for group in groups] == [
        ("ukpconvarg-00000", "Original.", 1)
    ]
    assert source == {
        "file": "raw/UKPConvArg1-full-XML",
        "groups": 1,
        "fingerprint": fingerprint(groups),
        "dropped": {"tied votes": 1},
    }


def test_an_original_of_other_data_does_not_matter(base):
    write_original(base)
    with pytest.raises(ValueError, match=r"no seeda\.jsonl\.gz"):
        human.load("seeda")


def test_every_original_has_a_place_under_raw():
    assert set(human.RAW_NAMES) == set(ORIGINALS)
