"""docs/extending/toxic.md, carried out as a contributor would: its files go into a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "extending" / "toxic.md"
BLOCK = re.compile(r"^`(?P<path>[\w/.-]+)`:\n\n```\w+\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
COPIED = (
    "src",
    "faults",
    "probes",
    "healing",
    "reports",
    "experiments",
    "tests/support",
    "tests/faults/conftest.py",
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the page needs, with the page's files in it. They are new: the page edits no file."""
    copy = tmp_path_factory.mktemp("project")
    for name in (*COPIED, "tests/conftest.py", "tests/faults/conftest.py", "pyproject.toml"):
        source, target = ROOT / name, copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    blocks = list(BLOCK.finditer(PAGE.read_text(encoding="utf-8")))
    assert [Path(block["path"]).suffix for block in blocks] == [".py", ".py", ".py", ".yaml"]
    for block in blocks:
        file = copy / block["path"]
        assert not file.exists()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block["text"], encoding="utf-8")
    return copy


def run(project: Path, *words: str) -> str:
    """Run a module in the copy; its sources come before those that are installed."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(project / "src")},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_s_own_test_passes(project: Path) -> None:
    assert re.search(r"\b6 passed\b", run(project, "pytest", "-q", "tests/faults/proxy/test_rewrite_status.py"))


def test_the_fault_is_listed_with_its_experiment(project: Path) -> None:
    rows = run(project, "monkeyproof.cli", "list", "--faults", "--markdown").splitlines()
    (row,) = [one for one in rows if one.startswith("| `network.rewrite_status` |")]
    assert "`rewritten-statuses`" in row


def test_chaos_toolkit_finds_the_fault_and_the_experiment_is_valid(project: Path) -> None:
    check = "from monkeyproof.experiment import catalogue; print(catalogue.find('rewritten-statuses').path)"
    done = subprocess.run(
        [sys.executable, "-c", check],
        env=os.environ | {"PYTHONPATH": str(project / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == str(project / "experiments" / "rewritten-statuses.yaml"), done.stderr


def test_the_page_s_code_is_as_the_linter_wants_it(project: Path) -> None:
    files = [block["path"] for block in BLOCK.finditer(PAGE.read_text(encoding="utf-8")) if ".py" in block["path"]]
    run(project, "ruff", "check", "--no-cache", *files)
    run(project, "ruff", "format", "--no-cache", "--check", *files)
