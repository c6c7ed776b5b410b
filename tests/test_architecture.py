"""The plan on the wall is true: docs/architecture.md names every package, and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
KERNEL = ROOT / "src" / "monkeyproof"
ROOMS = ("faults", "probes", "healing", "reports")
NAMED = sorted(
    set(re.findall(r"`((?:src/monkeyproof|faults|probes|healing|reports|experiments|tests)/[\w./-]*)`", PAGE))
)


def packages() -> list[str]:
    """Every package of the kernel, and every one directly inside a room that other files may import."""
    kernel = [path.parent for path in KERNEL.glob("*/__init__.py") if not path.parent.is_symlink()]
    rooms = [ROOT / room for room in ROOMS]
    return [f"{path.relative_to(ROOT)}/" for path in (*kernel, *rooms)]


def test_the_page_names_files() -> None:
    assert len(NAMED) > 40


@pytest.mark.parametrize("name", NAMED)
def test_each_file_and_folder_on_the_page_exists(name: str) -> None:
    path = ROOT / name
    assert path.is_dir() if name.endswith("/") else path.is_file()


@pytest.mark.parametrize("package", packages())
def test_each_package_is_on_the_page(package: str) -> None:
    assert f"`{package}`" in PAGE
