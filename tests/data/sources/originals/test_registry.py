"""The table of public originals says everything a user needs."""

import dataclasses
import re

import pytest

from posttrain.data.sources.originals.registry import ORIGINALS


def test_names():
    assert list(ORIGINALS) == [
        "ukpconvarg",
        "seeda",
        "finegrained_rlhf",
        "hh_harmless",
        "pku_safety",
        "xstest",
        "rmb_helpfulness",
        "rmb_safety",
    ]


@pytest.mark.parametrize("name", ORIGINALS)
def test_every_field_is_filled(name):
    original = ORIGINALS[name]
    assert original.name == name
    assert all(getattr(original, field.name) for field in dataclasses.fields(original))
    assert original.repository.startswith("https://github.com/")
    assert original.repository in original.download
    assert re.fullmatch("[0-9a-f]{7}", original.revision)


@pytest.mark.parametrize("name", ORIGINALS)
def test_a_missing_download_is_explained(name, tmp_path):
    with pytest.raises(ValueError, match=re.escape(ORIGINALS[name].download)):
        list(ORIGINALS[name].convert(tmp_path / "absent", None))
