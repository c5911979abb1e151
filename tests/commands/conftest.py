"""A run of ``posttrain train`` that several modules look at."""

import pytest
from tiny_runs import train


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A cache of their own for the runs of tests, prepared data included."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tiny_checkpoint, cache):
    """The folder of a run that nothing interrupted; nothing may write into it."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTTRAIN_CACHE", str(cache))
        assert train(tiny_checkpoint, folder) == 0
    return folder
