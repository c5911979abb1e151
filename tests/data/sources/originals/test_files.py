"""Reading originals: plain and compressed give the same, and every problem is a ValueError."""

import gzip
import lzma
import tarfile

import pytest

from posttrain.data.sources.originals.files import (
    decode,
    parse_xml,
    read_folder,
    read_text,
    required,
    short_hash,
)

REMEDY = "Download it again."


def test_text_is_the_same_plain_and_compressed(tmp_path):
    text = "één regel\nnog een\n"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress(text.encode()))
    for name in ("a.txt", "a.txt.gz", "a.txt.xz"):
        assert read_text(tmp_path / name, REMEDY) == text


def test_missing_file_names_path_and_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.json: no such file\. Download it again"):
        read_text(tmp_path / "absent.json", REMEDY)


@pytest.mark.parametrize("name", ["broken.gz", "broken.xz"])
def test_damaged_compression_is_a_value_error(tmp_path, name):
    (tmp_path / name).write_bytes(b"not compressed")
    with pytest.raises(ValueError, match=f"{name}: cannot be read"):
        read_text(tmp_path / name, REMEDY)


def test_truncated_compression_is_a_value_error(tmp_path):
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"some text" * 100)[:-12])
    with pytest.raises(ValueError, match=r"cut\.gz: cannot be read"):
        read_text(tmp_path / "cut.gz", REMEDY)


def test_other_encodings_are_refused_with_the_byte():
    with pytest.raises(ValueError, match=r"old\.txt, byte 3: not UTF-8"):
        decode("caf\xe9".encode("latin-1"), "old.txt", REMEDY)


def test_folder_is_read_in_order_of_name_whatever_the_order_in_the_archive(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("b.xml", "a.xml", "notes.txt", "._a.xml"):
        (folder / name).write_text(name)
    for archive_name in ("set.tar", "set.tar.gz", "set.tar.xz"):
        mode = archive_name.removeprefix("set.tar").replace(".", ":")
        with tarfile.open(tmp_path / archive_name, "w" + mode) as archive:
            for name in ("b.xml", "notes.txt", "._a.xml", "a.xml"):
                archive.add(folder / name, arcname=f"set/{name}")
        found = list(read_folder(tmp_path / archive_name, "*.xml", REMEDY))
        assert found == [
            (f"{tmp_path / archive_name}:set/a.xml", b"a.xml"),
            (f"{tmp_path / archive_name}:set/b.xml", b"b.xml"),
        ]
    assert list(read_folder(folder, "*.xml", REMEDY)) == [
        (str(folder / "a.xml"), b"a.xml"),
        (str(folder / "b.xml"), b"b.xml"),
    ]


def test_folder_problems(tmp_path):
    with pytest.raises(ValueError, match="no such file or folder"):
        list(read_folder(tmp_path / "absent", "*.xml", REMEDY))
    with pytest.raises(ValueError, match=r"holds no file \*\.xml"):
        list(read_folder(tmp_path, "*.xml", REMEDY))
    (tmp_path / "broken.tar").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="not a readable tar archive"):
        list(read_folder(tmp_path / "broken.tar", "*.xml", REMEDY))


def test_archive_with_two_data_sets_is_refused_instead_of_mixed(tmp_path):
    (tmp_path / "a.xml").write_text("<a/>")
    with tarfile.open(tmp_path / "both.tar", "w") as archive:
        archive.add(tmp_path / "a.xml", arcname="full/a.xml")
        archive.add(tmp_path / "a.xml", arcname="strict/a.xml")
    with pytest.raises(ValueError, match=r"several folders \(full, strict\)"):
        list(read_folder(tmp_path / "both.tar", "*.xml", REMEDY))
    with pytest.raises(ValueError, match="holds no file"):
        list(read_folder(tmp_path / "both.tar", "*.json", REMEDY))


def test_xml_error_gives_line_and_column():
    with pytest.raises(ValueError, match=r"a\.xml, line 2, column \d+: not well-formed"):
        parse_xml(b"<list>\n<open></list>", "a.xml", REMEDY)


def test_required_fields():
    assert required({"a": "text"}, "a", str, "here", REMEDY) == "text"
    with pytest.raises(ValueError, match=r"here: field 'b' is missing\. Download it again"):
        required({"a": 1}, "b", str, "here", REMEDY)
    with pytest.raises(ValueError, match="here: field 'a' must be str, found int"):
        required({"a": 1}, "a", str, "here", REMEDY)
    with pytest.raises(ValueError, match="here: expected an object with 'a', found list"):
        required([1], "a", str, "here", REMEDY)


def test_short_hash_is_stable():
    assert short_hash("a") == "0cc175b9"
