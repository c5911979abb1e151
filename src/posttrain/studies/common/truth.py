"""What studies have in common that need the truth of whatever a policy writes."""

from pathlib import Path
from typing import Any

from posttrain.data.sources.simulator import annotators, tasks
from posttrain.data.sources.simulator.annotators import SIMULATOR
from posttrain.errors import UserError


def check_source(source: str) -> None:
    """Refuse a source whose truth is not known, before anything is made.

    Raises:
        UserError: If it is not the simulator.
    """
    if source != SIMULATOR:
        raise UserError("only the simulator knows the truth of what a policy says; take it")


def account_of(policy: Path, *, clusters: int) -> dict[str, Any]:
    """The account of the data of a study of a policy, which answers so many prompts."""
    return {
        "policy": policy.name,
        "tasks": tasks.VERSION,
        "annotators": annotators.VERSION,
        "clusters": clusters,
    }
