"""Formats: CSV as people have it; the others are tested where groups are read and written."""

import csv
import gzip

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posttrain.cli import main
from posttrain.data.formats import MISSING, MISSING_CELLS, OPTIONAL, BadFile
from posttrain.data.preferences import BadRecord, Message, RankedGroup
from posttrain.data.reading import inspect_file, iterate_groups, read_groups, write_groups

HEADER = ["prompt", "chosen", "rejected"]
# The folder of one test is shared by all of its examples, each of which overwrites its files.
in_one_folder = settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(path, content, encoding="utf-8"):
    path.write_bytes(content.encode(encoding))
    return path


def test_a_table_by_hand(tmp_path):
    path = write(
        tmp_path / "mine.csv",
        "\ufeff,prompt,chosen,rejected,strength,edited,margin,topic\r\n"
        '0,Why?,"Because,\r\n""so"".",No.,4,,,x\r\n'
        "\r\n"
        "1,When?,Now.,Later.,,Right now.,0.5,y\r\n",
    )
    result = read_groups(path)
    question = (Message("user", "Why?"),), (Message("user", "When?"),)
    assert result.groups == [
        # Named by the line on which a row starts.
        RankedGroup("mine-2", question[0], ('Because,\r\n"so".', "No."), strength=4),
        RankedGroup("mine-5", question[1], ("Right now.", "Now.", "Later."), margin=0.5),
    ]
    assert result.notes.columns == {"''": 2, "topic": 2}


def test_a_table_of_pandas_with_missing_numbers(tmp_path):
    table = pd.DataFrame(
        {"prompt": ["a", "b"], "chosen": ["c", "d"], "rejected": ["e", "f"], "strength": [3, None]}
    )
    table.to_csv(tmp_path / "mine.csv")
    assert [group.strength for group in read_groups(tmp_path / "mine.csv").groups] == [3, None]


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
COLUMNS = ["id", *HEADER, "edited", "strength", "margin", "group", "domain"]
# In columns that may be empty, some cells mean that nothing is known.
told = texts.filter(lambda text: text not in MISSING)
ranked_groups = st.builds(
    RankedGroup,
    id=told,
    prompt=st.builds(lambda text: (Message("user", text),), told),
    responses=st.lists(told, min_size=2, max_size=3, unique_by=str.strip).map(tuple),
    strength=st.none() | st.integers(1, 4),
    margin=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    cluster_id=told,
    domain=st.none() | told,
)


@given(
    st.lists(ranked_groups, min_size=1, max_size=4, unique_by=lambda group: group.id),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)
@in_one_folder
def test_a_table_gives_the_groups_that_were_written(tmp_path, groups, end, quoting):
    path = tmp_path / "mine.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator=end, quoting=quoting)
        writer.writeheader()
        for group in groups:
            writer.writerow(
                {name: getattr(group, name) for name in COLUMNS if name not in ("prompt", "group")}
                | {"prompt": group.prompt[0].content, "group": group.cluster_id}
            )
    assert read_groups(path).groups == groups


def test_a_long_text_fits_into_a_cell(tmp_path):
    long = "word " * 50_000
    path = write(tmp_path / "mine.csv", f"prompt,chosen,rejected\nWhy?,{long},No.\n")
    assert read_groups(path).groups[0].chosen == long


@pytest.mark.parametrize(
    ("row", "line", "field", "problem"),
    [
        ("Why?,Yes, I do.,No.", 3, None, "the row has 4 cells and the first line 3 columns"),
        ("Why?,Yes.", 3, None, "the row has 2 cells and the first line 3 columns"),
        ("Why?,,No.", 3, "chosen", "it is empty"),
        (",Yes.,No.", 3, "prompt", "it is empty"),
    ],
)
def test_bad_rows_are_named_and_the_others_are_kept(tmp_path, row, line, field, problem):
    path = write(
        tmp_path / "mine.csv", f"prompt,chosen,rejected\nWhy?,Yes.,No.\n{row}\nHow?,So.,Or so.\n"
    )
    before, error, after = inspect_file(path)
    assert [before.id, after.id] == ["mine-2", "mine-4"]
    assert (type(error), error.line, error.field) == (BadRecord, line, field)
    assert problem in str(error)


@pytest.mark.parametrize("cell", MISSING)
def test_cells_that_say_that_nothing_is_known(tmp_path, cell):
    names = ",".join(("prompt", "chosen", "rejected", *OPTIONAL))
    row = ",".join([cell] * len(OPTIONAL))
    path = write(
        tmp_path / "mine.csv",
        f"{names}\nWhy?,{cell},No.,{row}\nHow?,So.,Or so.{',' * len(OPTIONAL)}\n",
    )
    result = read_groups(path)
    question = (Message("user", "Why?"),)
    assert result.groups[0] == RankedGroup("mine-2", question, (cell, "No."))
    assert result.notes.readings == {MISSING_CELLS: 1}


@pytest.mark.parametrize("value", ["strong", "3.5", "7", "inf"])
def test_a_strength_that_is_none_is_refused(tmp_path, value):
    path = write(tmp_path / "mine.csv", f"prompt,chosen,rejected,strength\nWhy?,Yes.,No.,{value}\n")
    with pytest.raises(BadRecord, match=r"line 2, field 'strength': .* is not one of 1, 2, 3, 4"):
        list(iterate_groups(path))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "the file has no rows"),
        ("prompt,chosen,rejected\n", "the file has no rows"),
        ("prompt;chosen;rejected\na;b;c\n", "separated by semicolons.*write it with commas"),
        ('"prompt"\t"chosen"\t"rejected"\n"a"\t"b"\t"c"\n', "separated by tabs"),
        ("prompt,better,worse\na,b,c\n", "no column chosen and no column rejected"),
        ("prompt,chosen,rejected,chosen\na,b,c,d\n", "two columns have the same name"),
        ('prompt,chosen,rejected\na,b,c\nd,"e,f\ng,h,i\n', "invalid CSV after line 2"),
        ('prompt,chosen,rejected\na,b,c\nd,"e"f,g\n', "invalid CSV after line 2"),
    ],
)
def test_bad_files(tmp_path, content, problem):
    with pytest.raises(BadFile, match=problem):
        read_groups(write(tmp_path / "mine.csv", content), skip_bad=True)


def test_a_table_in_another_encoding(tmp_path):
    path = write(tmp_path / "mine.csv", "prompt,chosen,rejected\nWhy?,Déjà vu.,No.\n", "cp1252")
    with pytest.raises(BadFile, match=r"invalid UTF-8 .* remedy: save it as CSV in UTF-8"):
        read_groups(path)


@given(st.binary(max_size=60).map(lambda content: b"prompt,chosen,rejected\n" + content))
@in_one_folder
def test_any_bytes_give_groups_or_bad_records(tmp_path, content):
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    items = list(inspect_file(path))
    assert items
    refused = [item for item in items if not isinstance(item, RankedGroup)]
    assert all(isinstance(error, BadRecord) for error in refused)
    assert all(str(error).isprintable() for error in refused)


def test_tables_are_not_written(tmp_path):
    group = RankedGroup("a", (Message("user", "Why?"),), ("good", "bad"))
    with pytest.raises(BadFile, match=r"use one of \.jsonl\.gz, \.jsonl, \.parquet"):
        write_groups(tmp_path / "data.csv", [group])
    assert not list(tmp_path.iterdir())


def test_a_compressed_table_is_no_known_format(tmp_path):
    path = tmp_path / "mine.csv.gz"
    path.write_bytes(gzip.compress(b"prompt,chosen,rejected\na,b,c\n"))
    with pytest.raises(BadFile, match=r"\.parquet, \.csv"):
        read_groups(path)


def test_the_command_line_checks_a_table(tmp_path, capsys):
    path = write(tmp_path / "mine.csv", "prompt,chosen,rejected\nWhy?,Yes.,No.\nWhy?,,No.\n")
    assert main(["data", "check", str(path)]) == 1
    assert "line 3, field 'chosen'" in "".join(capsys.readouterr())
