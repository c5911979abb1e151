"""``posttrain train`` without a limit of tokens: what memory has room for, said or refused."""

import json
import logging

import pytest
from tiny_runs import assert_equal_weights, refusal, train

from posttrain.models import memory


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(cache))


def test_tokens_at_once_are_what_there_is_room_for_and_change_nothing(
    tiny_checkpoint, tmp_path, monkeypatch, caplog
):
    found = []
    caplog.set_level(logging.INFO, "posttrain")
    for name, free in (("wide", 10**11), ("narrow", 2 * 10**7)):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        settings = {"max_tokens_per_device": None, "max_steps": 3}
        assert train(tiny_checkpoint, tmp_path / name, **settings) == 0
        account = json.loads((tmp_path / name / "run.json").read_text())
        found.append(account["tokens at once"])
        assert account["training"]["max_tokens_per_device"] is None
        assert "so there is room for" in caplog.text
    assert found[0] == memory.ENOUGH["cpu"] > found[1]
    assert_equal_weights(tmp_path / "wide", tmp_path / "narrow", atol=1e-12)


def test_what_does_not_fit_is_refused_before_the_first_step(
    tiny_checkpoint, tmp_path, monkeypatch, capsys
):
    settings = {"max_tokens_per_device": None, "max_steps": 3}
    monkeypatch.setattr(memory, "free_bytes", lambda device: 3 * 10**5)
    message = refusal(capsys, train(tiny_checkpoint, tmp_path / "weights", **settings))
    assert "for weights, gradients and optimiser do not fit" in message
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**6)
    message = refusal(capsys, train(tiny_checkpoint, tmp_path / "row", **settings))
    assert "the longest row takes" in message
    assert "--max_tokens_per_device to try all the same" in message
    # Who sets it is believed.
    settings["max_tokens_per_device"] = 400
    assert train(tiny_checkpoint, tmp_path / "row", **settings) == 0
