from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from monkeyproof.cli import main
from monkeyproof.errors import EXIT_REFUSED, EXIT_USAGE
from monkeyproof.safety import replay

HEAVY = (
    "mlflow",
    "locust",
    "scipy",
    "sklearn",
    "pandas",
    "pyarrow",
    "numpy",
    "kubernetes",
    "chaoslib",
    "pydantic",
)


def test_help_imports_nothing_heavy() -> None:
    """Why it answers at once. How fast that is, benchmarks/command_line.py measures."""
    code = (
        "import sys\nfrom monkeyproof.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_names_every_command() -> None:
    output = CliRunner().invoke(main, ["--help"]).output
    for command in ("run", "gate", "list", "target", "report", "revert", "plan", "stop", "doctor"):
        assert f"  {command} " in output


def test_list_shows_the_catalogue() -> None:
    output = CliRunner().invoke(main, ["list"]).output
    for name in ("corrupt-records", "latency-spike", "kubernetes/pod-kill"):
        assert name in output


@pytest.mark.parametrize(
    ("error", "exit_code", "words"),
    [
        (KeyboardInterrupt(), EXIT_REFUSED, "monkeyproof: ended by Ctrl-C\n"),
        (
            OSError(30, "Read-only file system", "/x/lock"),
            EXIT_USAGE,
            "monkeyproof: /x/lock: Read-only file system; correct that, then try again\n",
        ),
    ],
)
def test_external_errors_have_a_message_and_are_no_verdict(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, exit_code: int, words: str
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise error

    monkeypatch.setattr(replay, "revert_all", fail)
    result = CliRunner().invoke(main, ["revert"])
    assert (result.exit_code, result.output) == (exit_code, words)


def test_doctor_says_what_is_there_and_what_is_not() -> None:
    result = CliRunner().invoke(main, ["doctor"])
    assert "feature store" in result.output
    assert result.exit_code in (0, 2)
    assert (result.exit_code == 2) == ("missing" in result.output)
