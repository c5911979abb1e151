"""Where the cache lies, and when names of results change."""

import re
from pathlib import Path

import pytest

from posttrain.storage import cache


def test_the_configured_folder_comes_first(monkeypatch, tmp_path):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert cache.folder() == tmp_path / "mine"


@pytest.mark.parametrize("empty", [None, ""])
def test_without_it_the_users_cache_folder_is_used(monkeypatch, tmp_path, empty):
    monkeypatch.delenv("POSTTRAIN_CACHE", raising=False)
    if empty is not None:
        monkeypatch.setenv("POSTTRAIN_CACHE", empty)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "posttrain"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert cache.folder() == tmp_path / "home" / ".cache" / "posttrain"


def test_a_key_depends_on_settings_version_and_libraries(monkeypatch):
    installed = {"torch": "2.11", "transformers": "5.17"}
    monkeypatch.setattr(cache.metadata, "version", installed.__getitem__)
    settings = {"seed": 0, "texts": 600}
    key = cache.key(settings, "torch", version=1)
    assert re.fullmatch("[0-9a-f]{16}", key)
    assert cache.key({"texts": 600, "seed": 0}, "torch", version=1) == key
    others = [
        cache.key({"seed": 1, "texts": 600}, "torch", version=1),
        cache.key({"seed": 0}, "torch", version=1),
        cache.key(settings, "torch", version=2),
        cache.key(settings, version=1),
        cache.key(settings, "torch", "transformers", version=1),
    ]
    installed["torch"] = "2.12"
    others.append(cache.key(settings, "torch", version=1))
    assert len({key, *others}) == 7


def test_settings_that_are_not_plain_are_refused():
    with pytest.raises(TypeError, match="not JSON serializable"):
        cache.key({"folder": Path("x")}, version=1)


def test_a_failure_leaves_nothing_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path))

    def make(folder):
        (folder / "half").write_text("x")
        raise RuntimeError("no space left")

    with pytest.raises(RuntimeError, match="no space left"):
        cache.get_or_create("thing", make)
    assert list(tmp_path.iterdir()) == []


def write_as_another_process(folder):
    folder.mkdir()
    (folder / "whose").write_text("theirs")


def test_a_process_that_was_faster_wins(monkeypatch, tmp_path):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path))
    folder = cache.get_or_create("thing", lambda _: write_as_another_process(tmp_path / "thing"))
    assert (folder / "whose").read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_process_that_was_faster_by_a_hair_wins(monkeypatch, tmp_path):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path))
    rename = cache.os.rename

    def late_rename(source, target):
        write_as_another_process(target)
        rename(source, target)

    monkeypatch.setattr(cache.os, "rename", late_rename)
    folder = cache.get_or_create("thing", lambda made: (made / "whose").write_text("ours"))
    assert (folder / "whose").read_text() == "theirs"
