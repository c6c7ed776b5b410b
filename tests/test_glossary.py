"""The glossary is true: sorted, without doubles, every place named exists, and every outcome is explained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from monkeyproof.types import Outcome

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")
]
TERMS = [row[0] for row in ROWS[1:]]
PLACES = sorted({place for row in ROWS[1:] for place in re.findall(r"`([\w/]+(?:\.py|/))`", row[-1])})


def test_terms_are_sorted_and_stand_once() -> None:
    words = [re.sub(r"\W", "", term.split(" (")[0].split(",")[0]).casefold() for term in TERMS]
    assert words == sorted(words)
    assert len(set(words)) == len(words) > 60


def test_each_row_has_a_term_a_meaning_and_a_place() -> None:
    assert [row for row in ROWS if len(row) != 3 or not all(row)] == []


@pytest.mark.parametrize("place", PLACES)
def test_each_place_exists(place: str) -> None:
    assert any((base / place).exists() for base in (ROOT, ROOT / "src" / "monkeyproof"))


@pytest.mark.parametrize("outcome", Outcome)
def test_each_outcome_is_explained(outcome: Outcome) -> None:
    row = next(row for row in ROWS if row[0] == "outcome")
    assert outcome.value.replace("self_recovered", "self-recovered").replace("_", " ") in row[1]
