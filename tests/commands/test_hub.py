"""``push_to_hub``: tried before anything is read, and the finished model is what is uploaded."""

import pytest
from huggingface_hub import HfApi, RepoUrl
from tiny_runs import refusal, train

from posttrain.models.loading import contents

#: Neither model nor data are there, so whoever reads them first would say so.
NOTHING = {"data": "missing.jsonl", "hub_token": "hf_nobody"}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(cache))


def test_without_network_it_is_refused_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code = train("no/where", tmp_path / "run", "--push_to_hub", **NOTHING)
    message = refusal(capsys, code)
    assert "HF_HUB_OFFLINE is set" in message
    assert f"hf upload run {tmp_path / 'run'}" in message
    assert not (tmp_path / "run").exists()


def test_without_a_token_it_is_refused_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.hf_api.get_token", lambda: None)
    code = train("no/where", tmp_path / "run", "--push_to_hub", data="missing.jsonl")
    assert "there is no token: run hf auth login" in refusal(capsys, code)


def test_a_hub_that_does_not_answer_is_said(tmp_path, monkeypatch, capsys):
    def unreachable(*_, **__):
        raise ConnectionError("no route to host\nand much more")

    monkeypatch.setattr(HfApi, "whoami", unreachable)
    code = train("no/where", tmp_path / "run", "--push_to_hub", **NOTHING)
    assert "(no route to host and much more: check the network" in refusal(capsys, code)


@pytest.mark.parametrize("reached", [True, False])
def test_the_finished_model_is_uploaded_once(
    tiny_checkpoint, tmp_path, monkeypatch, capsys, reached
):
    uploads = []

    def upload(_, **settings):
        if not reached:
            raise ConnectionError("gone")
        uploads.append((settings["repo_id"], settings["folder_path"], contents(run)))

    address = "https://huggingface.co/someone/run"
    monkeypatch.setattr(HfApi, "whoami", lambda *_, **__: {"name": "someone"})
    monkeypatch.setattr(HfApi, "create_repo", lambda *_, **__: RepoUrl(address))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    run = tmp_path / "run"
    changes = {"max_steps": 2, "save_steps": 1, "lora_rank": 2, "hub_token": "hf_nobody"}
    code = train(tiny_checkpoint, run, "--push_to_hub", **changes)
    # What checkpoints hold is not yet the model.
    assert not (run / "adapter_config.json").exists()
    if reached:
        assert (code, uploads) == (0, [("someone/run", run, contents(run))])
    else:
        assert "holds the finished model, which could not be uploaded (gone)" in refusal(
            capsys, code
        )
        assert contents(run)
