"""What studies need that know the truth of a policy's answers."""

from pathlib import Path

import pytest

from posttrain.data.sources.simulator import annotators, tasks
from posttrain.errors import UserError
from posttrain.studies.common.truth import account_of, check_source


def test_the_account_names_policy_world_and_prompts():
    assert account_of(Path("cache/tiny-0"), clusters=64) == {
        "policy": "tiny-0",
        "tasks": tasks.VERSION,
        "annotators": annotators.VERSION,
        "clusters": 64,
    }


def test_only_the_simulator_knows_the_truth():
    check_source("simulator")
    with pytest.raises(UserError, match="only the simulator"):
        check_source("seeda")
