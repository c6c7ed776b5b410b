"""The files on a page of the documentation, and a copy of the checkout in which a test puts and runs them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FILE = re.compile(r"^`([^`\n]+)`:\n\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A line that is a file's name in code font and a colon, and the block of code below it."""


def files_on(page: str) -> Mapping[str, str]:
    """Contents of the files on a page, by their names. ``page``: the path of the page in the checkout."""
    found = dict(_FILE.findall((ROOT / page).read_text(encoding="utf-8")))
    assert found, f"{page} has no file on it"
    return found


class CheckoutCopy:
    """A copy of the package and of what its tests share, that a new contributor may change."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        no_caches = shutil.ignore_patterns("__pycache__")
        for name in ("src", "faults", "probes", "healing", "reports", "experiments"):
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=no_caches)
        shutil.copytree(ROOT / "tests" / "support", folder / "tests" / "support", ignore=no_caches)
        shutil.copy(ROOT / "tests" / "conftest.py", folder / "tests")
        shutil.copy(ROOT / "pyproject.toml", folder)

    def add(self, files: Mapping[str, str]) -> None:
        """Write new files; one that exists already is no addition, and fails."""
        for name, text in files.items():
            path = self._folder / name
            assert not path.exists(), f"{name} exists already"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def run(self, *words: str) -> str:
        """Run Python in the copy, with the copy's package; returns its output, and fails if it does."""
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": str(self._folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
