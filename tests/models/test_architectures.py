"""Models of many architectures score, train and are evaluated as stock has them, or are refused.

What is expected of each stands in the table of ``book/architectures.md``.
"""

from pathlib import Path

import pytest
import transformers
from architectures import ARCHITECTURES
from matrix import REFUSALS, ROWS, cells, line

PAGE = Path(__file__).parents[2] / "book/architectures.md"
LINES = PAGE.read_text(encoding="utf-8").splitlines()
TABLE = {
    name: found.split("|")[3:-1]
    for found in LINES
    if found.startswith("| ") and (name := found.split("|")[1].strip()) in ARCHITECTURES
}
EXPECTED = {name: [cell.strip() for cell in row] for name, row in TABLE.items()}


def test_the_table_of_the_book_has_every_architecture_and_every_refusal():
    assert list(EXPECTED) == list(ARCHITECTURES)
    page = " ".join(" ".join(LINES).split())
    for letter, sentence in REFUSALS.items():
        assert f"`{letter}`: “{sentence}" in page


def test_refusals_are_of_exact_single_rows_and_of_attention_to_both_sides_alone():
    for name, (separate, *_, causal) in EXPECTED.items():
        expected = "a" if name == "Gemma 3, both sides" else "="
        assert (separate, causal) == (expected, expected), name
    exact = [name for name, row in EXPECTED.items() if row[1] == row[2] == "="]
    assert len(exact) >= 15
    assert len({ARCHITECTURES[name][0] for name in EXPECTED}) >= 24


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_is_as_the_table_of_the_book_has_it(name):
    if ARCHITECTURES[name][0] not in transformers.CONFIG_MAPPING:
        pytest.skip("this version of transformers has no such model")
    assert line(name, cells(name)) == line(name, EXPECTED[name])
    assert len(EXPECTED[name]) == len(ROWS)
