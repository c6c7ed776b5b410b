"""The report model: a campaign is judged, and its statistics are computed, in one place of the package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import monkeyproof

PACKAGE = Path(monkeyproof.__file__).parent
DEFINED_IN = {"judge": "monkeyproof.reports.model.verdict", "summarise": "monkeyproof.reports.stats.summary"}


def calls(tree: ast.Module, name: str, module: str) -> int:
    """How often ``name`` of ``module`` is called, however it was imported."""
    local = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == module
        for alias in node.names
        if alias.name == name
    }
    modules = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if f"{node.module}.{alias.name}" == module
    }
    found = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found += called in local or any(called == f"{one}.{name}" for one in (*modules, module))
    return found


@pytest.mark.parametrize("name", DEFINED_IN)
def test_called_in_one_place(name: str) -> None:
    places: list[str] = []
    for path in python_files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        places += [str(path.relative_to(PACKAGE))] * calls(tree, name, DEFINED_IN[name])
    assert places == ["reports/model/report.py"]


def python_files() -> list[Path]:
    """Every module of the package. Its rooms are links, which ``rglob`` does not follow."""
    roots = [PACKAGE, *(path for path in PACKAGE.iterdir() if path.is_symlink())]
    return sorted({path for root in roots for path in root.rglob("*.py")})


@pytest.mark.parametrize(
    "text",
    [
        "from monkeyproof.reports.model.verdict import judge\njudge(1, 2)",
        "from monkeyproof.reports.model.verdict import judge as j\nj(1, 2)",
        "from monkeyproof.reports.model import verdict\nverdict.judge(1, 2)",
        "import monkeyproof.reports.model.verdict\nmonkeyproof.reports.model.verdict.judge(1, 2)",
    ],
)
def test_a_call_is_found_however_it_is_imported(text: str) -> None:
    assert calls(ast.parse(text), "judge", DEFINED_IN["judge"]) == 1
    assert calls(ast.parse("from monkeyproof.healing.samples import judge\njudge(1)"), "judge", "x") == 0
