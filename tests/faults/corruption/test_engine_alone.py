"""The data engine works without the harness: it imports numpy and the harness's errors, and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[3] / "faults" / "corruption"
PACKAGE = "monkeyproof.faults.corruption"
OPTIONAL = {
    "arrow.py": {"pyarrow"},
    "parquet.py": {"pyarrow"},
    "frames.py": {"pandas"},
    "numba_engine.py": {"numba"},
}
"""Files that are for one kind of table or one extra, and are imported only when it is used."""


def imported_at_top(file: Path) -> set[str]:
    """Modules that a file imports as soon as it is imported itself, without those under TYPE_CHECKING."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            found.add(str(node.module))
    return found


@pytest.mark.parametrize("file", sorted(ENGINE.glob("*.py")), ids=lambda file: file.stem)
def test_a_module_of_the_engine_imports_numpy_and_errors_alone(file: Path) -> None:
    strange = {
        module
        for module in imported_at_top(file)
        if module.partition(".")[0] not in {*sys.stdlib_module_names, "numpy", *OPTIONAL.get(file.name, ())}
        and module not in (PACKAGE, "monkeyproof.errors")
        and not module.startswith(f"{PACKAGE}.")
    }
    assert not strange, f"{file.name} imports {', '.join(sorted(strange))}"


def loaded_by(code: str) -> set[str]:
    """Modules that a fresh interpreter has loaded after it ran some code."""
    script = f"import sys\n{code}\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    return set(done.stdout.split())


def test_the_family_of_data_is_imported_without_the_harness() -> None:
    loaded = loaded_by("import monkeyproof.faults.data")
    of_ours = {name for name in loaded if name.startswith("monkeyproof.")}
    allowed = ("monkeyproof.errors", "monkeyproof.faults", "monkeyproof.faults.data", PACKAGE)
    assert {name for name in of_ours if name not in allowed and not name.startswith(f"{PACKAGE}.")} == set()
    others = loaded_by("import numpy")
    packages = {name.partition(".")[0] for name in loaded - others} - sys.stdlib_module_names
    assert packages == {"monkeyproof", "numpy"}, "a package is imported that the engine does not need"


def test_the_faults_of_the_family_are_there_when_asked_for() -> None:
    loaded = loaded_by(
        "import inspect, monkeyproof.faults.data as data\n"
        "found = dict(inspect.getmembers(data, inspect.isfunction))\n"  # As Chaos Toolkit finds an action.
        "assert found['scale_records'] is data.scale_records and callable(found['corrupt'])\n"
        "assert set(data.__all__) <= set(dir(data))\n"
        "assert data.scale_records.__fault__.name == 'data.scale_records'"
    )
    assert "monkeyproof.faults.data.values" in loaded


def test_a_name_that_the_family_does_not_have_is_an_attribute_error() -> None:
    from monkeyproof.faults import data

    with pytest.raises(AttributeError, match="no attribute 'scale_record'"):
        _ = data.scale_record
