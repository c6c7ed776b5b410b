"""The rooms stand at the root and are installed under one name; a checkout that lost its links must say so."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from parts import ALONE, LENGTHY, LIVE

ROOT = Path(__file__).parents[1]
ROOMS = ("faults", "probes", "healing", "reports", "experiments")


@pytest.mark.parametrize("room", ROOMS)
def test_room_is_a_link_to_a_folder_at_the_root(room: str) -> None:
    link = ROOT / "src" / "monkeyproof" / room
    assert link.is_symlink(), f"{link} is not a symbolic link; on Windows: git config core.symlinks true"
    assert link.is_dir()
    assert link.resolve() == ROOT / room


@pytest.mark.parametrize("room", ROOMS)
def test_room_is_imported_by_its_long_name_only(room: str) -> None:
    module = importlib.import_module(f"monkeyproof.{room}")
    assert Path(module.__path__[0]).resolve() == ROOT / room


def test_wheel_holds_every_room_with_its_data(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("src", *ROOMS):
        shutil.copytree(ROOT / name, source / name, symlinks=True)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", build, tmp_path], cwd=source, check=True, timeout=120, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "monkeyproof/py.typed" in names
    assert {f"monkeyproof/{room}/__init__.py" for room in ROOMS} <= names
    shipped = {path.relative_to(ROOT).as_posix() for path in (ROOT / "experiments").rglob("*.yaml")}
    assert {f"monkeyproof/{name}" for name in shipped} <= names
    templates = {path.name for path in (ROOT / "reports" / "templates").iterdir()}
    assert templates
    assert {f"monkeyproof/reports/templates/{name}" for name in templates} <= names
    assert not [name for name in names if name.split("/")[0] in ROOMS]


@pytest.mark.parametrize("beginning", [*ALONE, *LIVE, *LENGTHY])
def test_part_of_the_tests_names_files_that_exist(beginning: str) -> None:
    assert (ROOT / beginning).exists(), f"{beginning} in tests/support/parts.py names nothing"
