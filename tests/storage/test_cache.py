"""Where the cache lies, and when names of results change."""

import re
from pathlib import Path

import pytest

from posttrain.rows import layout
from posttrain.storage import cache
from posttrain.training import losses


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


def test_a_key_depends_on_settings_and_code_only():
    settings = {"seed": 0, "texts": 600}
    key = cache.key(settings, losses)
    assert re.fullmatch("[0-9a-f]{16}", key)
    assert cache.key({"texts": 600, "seed": 0}, losses) == key
    others = [
        cache.key({"seed": 1, "texts": 600}, losses),
        cache.key({"seed": 0}, losses),
        cache.key(settings),
        cache.key(settings, layout),
        cache.key(settings, losses, layout),
    ]
    assert len({key, *others}) == 6


def test_a_key_changes_when_the_source_text_changes(monkeypatch):
    before = cache.key({}, losses)
    source = cache.inspect.getsource(losses)
    monkeypatch.setattr(cache.inspect, "getsource", lambda module: source + "# changed\n")
    assert cache.key({}, losses) != before


def test_settings_that_are_not_plain_are_refused():
    with pytest.raises(TypeError, match="not JSON serializable"):
        cache.key({"folder": Path("x")})


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
