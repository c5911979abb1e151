"""Files that appear whole or not at all."""

import pytest

from posttrain.errors import UserError
from posttrain.storage.files import whole_file, whole_path


def test_a_file_has_its_name_once_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "er" / "scores.jsonl"
    with whole_file(path) as file:
        file.write("first\n")
        file.flush()
        assert not path.exists()
        file.write("Katze 🐈\n")
    assert path.read_bytes() == "first\nKatze 🐈\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_name_may_be_text(tmp_path):
    with whole_file(f"{tmp_path}/x") as file:
        file.write("x")
    assert (tmp_path / "x").read_text() == "x"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_failure_leaves_nothing(tmp_path, error):
    def write():
        with whole_file(tmp_path / "deep" / "scores.jsonl") as file:
            file.write("half")
            raise error("stopped here")

    with pytest.raises(error, match="stopped here"):
        write()
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_failure_leaves_the_old_file_and_a_success_replaces_it(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_text("a longer text than the new one")

    def write(stop):
        with whole_file(path) as file:
            file.write("new")
            assert path.read_text() == "a longer text than the new one"
            if stop:
                raise ValueError("stopped here")

    with pytest.raises(ValueError, match="stopped here"):
        write(stop=True)
    assert path.read_text() == "a longer text than the new one"
    assert list(tmp_path.iterdir()) == [path]
    write(stop=False)
    assert path.read_text() == "new"


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    for below in ("x", "deep/x"):
        with (
            pytest.raises(UserError, match="is a file and no folder"),
            whole_file(tmp_path / "file" / below),
        ):
            pytest.fail("too late")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"), whole_file(tmp_path / "folder") as file:
        file.write("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_two_files_of_one_folder_do_not_meet(tmp_path):
    with whole_file(tmp_path / "a") as first, whole_file(tmp_path / "b") as second:
        first.write("1")
        second.write("2")
    assert [(tmp_path / name).read_text() for name in "ab"] == ["1", "2"]


def test_a_path_is_for_whoever_opens_it(tmp_path):
    path = tmp_path / "deep" / "states.npy"
    path.parent.mkdir()
    path.write_bytes(b"old")
    with whole_path(path) as partial:
        assert (partial.parent, partial.suffix) == (path.parent, path.suffix)
        partial.write_bytes(bytes(range(256)))
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == bytes(range(256))
    assert list(path.parent.iterdir()) == [path]


def test_a_path_that_nobody_wrote_to_is_an_error_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), whole_path(path):
        pass
    assert path.read_text() == "old"
