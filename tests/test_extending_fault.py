"""docs/extending/fault.md is true: a copy of this checkout with its three files, and no edit, has the fault."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending" / "fault.md"
COPIED = ("src", "faults", "probes", "healing", "reports", "experiments", "tests/support", "tests/torture")
FILES = ("pyproject.toml", "README.md", "tests/conftest.py", "tests/faults/conftest.py")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout, with the files of the page."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    page = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^`([\w/.-]+)`:\n\n```(?:python|yaml)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert [name.partition("/")[0] for name, _ in blocks] == ["faults", "experiments", "tests"]
    for name, text in blocks:
        assert not (copy / name).exists(), f"{name} is there already"
        (copy / name).write_text(text, encoding="utf-8")
    return copy


def run(checkout: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout / "src"), "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_the_fault_is_listed_with_its_parameters_and_its_experiment(checkout: Path) -> None:
    (row,) = [
        line
        for line in run(checkout, "monkeyproof.cli", "list", "--faults", "--markdown").splitlines()
        if "`registry.inflate_accuracy`" in line
    ]
    assert '`version="", accuracy=0.999`' in row
    assert "`inflated-accuracy`" in row


def test_the_fault_works_on_a_real_registry(checkout: Path) -> None:
    assert "3 passed" in run(checkout, "pytest", "-q", "-p", "no:cacheprovider", "tests/faults/test_mistagging.py")


def test_the_files_pass_the_linters(checkout: Path) -> None:
    run(checkout, "ruff", "check", "faults", "tests/faults")
    run(checkout, "ruff", "format", "--check", "faults", "tests/faults")
