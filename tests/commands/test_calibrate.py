"""``posttrain calibrate``: what is fitted on which pairs, where it is written, what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from reward_folders import save_leaning

from posttrain import cli
from posttrain.data.reading import write_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.evaluation import calibration
from posttrain.models import reward_model
from posttrain.models.reward_model import score
from posttrain.rows.tokenization import tokenize_group

GROUPS = [group.ranked for group in simulate(40, seed=4, edited_share=0.5)] + [
    replace(group.ranked, id=f"safety-{number}")
    for number, group in enumerate(simulate(20, seed=9, domain="safety"))
]


@pytest.fixture(scope="module")
def folder(tiny_checkpoint, tmp_path_factory):
    """A reward model; nothing may write into it."""
    return save_leaning(tiny_checkpoint, tmp_path_factory.mktemp("model"), GROUPS)


@pytest.fixture
def model(folder, tmp_path):
    """The same, for a test to write into."""
    copy = tmp_path / "model"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).symlink_to(path)
    return copy


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.jsonl"
    write_groups(path, GROUPS)
    return path


def run(model, data, *more):
    return cli.main(["calibrate", "--model", str(model), "--data", str(data), *map(str, more)])


def pairs(model, groups):
    """Scores of chosen and of rejected."""
    loaded, tokenizer = reward_model.load(model)
    tokens = [tokenize_group(tokenizer, group, keep_equal=True) for group in groups]
    scores = score(loaded, tokens, pad_token_id=0).split([len(g.responses) for g in groups])
    return np.array([one[-2:].tolist() for one in scores]).T


def test_the_calibration_is_that_of_chosen_and_rejected_beside_the_model(model, data, capsys):
    assert run(model, data) == 0
    winners, losers = pairs(model, GROUPS)
    loaded, tokenizer = reward_model.load(model)
    found = calibration.load(model / "calibration.json", loaded, tokenizer)
    expected = calibration.fit(winners, losers)
    assert found.scale == pytest.approx(expected.scale, rel=1e-6)
    assert found.centre == pytest.approx(expected.centre, rel=1e-6)
    assert found.pairs == 60
    assert found.data == (str(data),)
    before = calibration.log_likelihood(winners - losers)
    after = calibration.log_likelihood(found.scale * (winners - losers))
    assert after > before
    assert capsys.readouterr().out.splitlines() == [
        f"fitted on 60 pairs: scale {found.scale:.4g} nats per unit of score, centre "
        f"{found.centre:.4g}",
        f"log-likelihood of a held-out pair: {before:.4f} nats before, {after:.4f} after (a coin "
        "flip gives -0.6931)",
        f"wrote {model / 'calibration.json'}",
    ]


def test_edited_responses_play_no_part(model, data, tmp_path):
    assert run(model, data) == 0
    plain = tmp_path / "plain.jsonl"
    write_groups(
        plain,
        [replace(one, responses=one.responses[-2:]) for one in GROUPS],
    )
    output = tmp_path / "plain.json"
    assert run(model, plain, "--output", output) == 0
    found = [json.loads(path.read_text()) for path in (model / "calibration.json", output)]
    assert found[0]["scale"] == pytest.approx(found[1]["scale"], rel=1e-9)
    assert found[0]["centre"] == pytest.approx(found[1]["centre"], rel=1e-9)


def test_one_domain_can_be_taken_and_the_rest_is_counted(model, data, tmp_path, capsys):
    output = tmp_path / "new" / "safety.json"
    assert run(model, data, "--domain", "helpfulness", "--output", output) == 0
    out = capsys.readouterr().out
    assert "fitted on 40 pairs" in out
    assert out.splitlines()[-2:] == [f"wrote {output}", "20 groups of other domains"]
    found = calibration.read(output)
    expected = calibration.fit(*pairs(model, GROUPS[:40]))
    assert found.scale == pytest.approx(expected.scale, rel=1e-6)
    assert found.data == (f"{data}, domain helpfulness",)
    assert not (model / "calibration.json").exists()


def test_a_domain_that_does_not_occur_is_refused(model, data, capsys):
    assert run(model, data, "--domain", "beauty") == 1
    err = capsys.readouterr().err
    assert f"no pair is left to calibrate on in {data}; left out: 60 groups of other" in err
    assert not (model / "calibration.json").exists()


def test_several_files_are_read_and_what_is_left_out_is_counted(model, data, capsys):
    with data.open("a") as file:
        file.write('{"prompt": "p", "chosen": "c"}\n')
    assert run(model, data) == 1
    assert f"{data}, line 61, field 'rejected'" in capsys.readouterr().err
    other = data.with_name("other.jsonl")
    other.write_text(data.read_text())
    assert run(model, data, other, "--skip_bad", "--max_tokens", 14, "--skip_too_long") == 0
    out = capsys.readouterr().out
    for what in ("2 bad records", "groups that are too long", "trimmed prompts"):
        assert what in out.splitlines()[-1]
    found = calibration.read(model / "calibration.json")
    assert found.data == (str(data), str(other))
    too_long = int(out.splitlines()[-1].split(" groups that are too long")[0].split()[-1])
    assert 0 < found.pairs == 120 - too_long


def test_a_random_head_is_refused(tiny_checkpoint, data, tmp_path, capsys):
    output = tmp_path / "calibration.json"
    assert run(tiny_checkpoint, data, "--output", output) == 1
    err = capsys.readouterr().err
    assert f"{tiny_checkpoint} has no score head" in err
    assert "train a reward model first" in err
    assert not output.exists()


@pytest.mark.parametrize("name", ["owner/name", "smollm2", "tiny", "gone"])
def test_a_model_that_is_no_folder_needs_an_output(name, data, tmp_path, monkeypatch, capsys):
    # A folder of the name of an embedded model is not what is loaded.
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run(name, data) == 1
    assert capsys.readouterr().err == (
        f"posttrain: {name} is no folder, so its calibration cannot stand beside it; say where to "
        "write it (--output PATH)\n"
    )


def test_pairs_that_no_scale_fits_leave_no_file(model, tmp_path, capsys):
    winners, losers = pairs(model, GROUPS)
    for right, message in ((True, "is ranked wrong"), (False, "scores no higher on average")):
        some = [GROUPS[place] for place in np.flatnonzero((winners > losers) == right)]
        path = tmp_path / f"{right}.jsonl"
        write_groups(path, some)
        assert run(model, path) == 1
        assert message in capsys.readouterr().err
    assert not (model / "calibration.json").exists()


def test_a_new_calibration_replaces_the_old_one(model, data):
    assert run(model, data) == 0
    first = calibration.read(model / "calibration.json")
    assert run(model, data, "--domain", "helpfulness") == 0
    assert calibration.read(model / "calibration.json").pairs == 40 != first.pairs


def test_settings_may_stand_in_a_file(model, data, tmp_path, capsys):
    config = tmp_path / "calibrate.yaml"
    config.write_text(f"model: {model}\ndata: [{data}]\ndomain: helpfulness\n")
    assert cli.main(["calibrate", "--config", str(config)]) == 0
    assert "fitted on 40 pairs" in capsys.readouterr().out


def test_an_unknown_setting_is_refused(model, data, capsys):
    with pytest.raises(SystemExit) as stop:
        run(model, data, "--colour", "red")
    assert stop.value.code == 2
    assert "unknown settings: --colour" in capsys.readouterr().err
