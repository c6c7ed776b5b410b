"""docs/extending/report.md, followed to the letter: its format is found, its test passes, its tables are true."""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from monkeyproof.reports import format_table, formats
from monkeyproof.reports.model.report import Report

PAGE = (Path(__file__).parents[2] / "docs" / "extending" / "report.md").read_text(encoding="utf-8")
FORMAT, TEST = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's two files, where the page says, in a copy of the two folders."""
    monkeypatch.setattr(format_table, "_registered", dict(format_table._registered))
    places = re.findall(r"[Cc]reate `([\w/]+\.py)`", PAGE)
    assert places == ["reports/formats/trials_csv.py", "tests/reports/test_trials_csv.py"]
    for place, text in zip(places, (FORMAT, TEST), strict=True):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_text(text, encoding="utf-8")
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path / "reports" / "formats")])
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("monkeyproof.reports.formats.trials_csv", None)
    vars(formats).pop("trials_csv", None)


def test_format_of_the_page_is_found(followed: Path) -> None:  # noqa: ARG001
    found = {one.name: one for one in format_table.format_table().formats}
    assert found["csv"].file_name == "trials.csv"
    assert found["csv"].default


def test_test_of_the_page_passes(followed: Path, tmp_path: Path) -> None:
    names: dict[str, object] = {}
    path = followed / "tests" / "reports" / "test_trials_csv.py"
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)  # noqa: S102
    (test,) = [value for name, value in names.items() if name.startswith("test_")]
    test(tmp_path / "campaign")  # type: ignore[operator]
    lines = (tmp_path / "campaign" / "trials.csv").read_text().splitlines()
    assert lines[0].startswith("experiment,arm,seed,outcome,")
    assert len(lines) == 21


def test_page_names_every_attribute_of_the_report() -> None:
    table = PAGE[PAGE.index("| attribute of `Report`") : PAGE.index("A row holds text")]
    cells = [row.split("|")[1] for row in table.splitlines()[2:] if row]
    named = set(re.findall(r"`(\w+)`", " ".join(cells)))
    assert named == {field.name for field in dataclasses.fields(Report)}


def test_entry_point_of_the_page_is_of_the_group() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert list(tomllib.loads(block)["project"]["entry-points"]) == [format_table.REPORTS]
