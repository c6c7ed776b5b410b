"""What a person gets wrong is answered in words, with the place, exit code 2, and nothing started or changed."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from command_line import monkeyproof

GOOD = (Path(__file__).parents[2] / "experiments" / "latency-spike.yaml").read_text()
TARGET = """\
name: t
predict: {url: "http://127.0.0.1:9/invocations", golden: g.jsonl}
allow_faults: [network]
"""


def refused(folder: Path, words: str, *arguments: str) -> None:
    before = sorted(path.name for path in folder.iterdir())
    done = monkeyproof(folder, *arguments)
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    assert words in output
    assert "Traceback" not in output
    assert len(output) < 2000
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("add_latency", "add_latncy"), "e.yaml:{line}: monkeyproof.faults.network has no function 'add_latncy'"),
        (("faults.network", "faults.netwrk"), "no module 'monkeyproof.faults.netwrk' can be imported"),
        (
            ("low_ms: 500.0", "low_ms: slow"),
            "e.yaml:{line}: low_ms: Input should be a valid number (found 'slow')",
        ),
        (("low_ms: 500.0", "low: 500.0"), "e.yaml:{line}: add_latency takes no argument 'low'"),
        (("method:", "methods:"), "e.yaml:1: method: missing"),
        (("elephant: [healed]", "elephant: [cured]"), "e.yaml:{line}"),
        (("title: A slow", "title: [A slow"), "not YAML"),
    ],
)
def test_wrong_experiments(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    assert change[0] in GOOD
    wrong = GOOD.replace(*change)
    (tmp_path / "e.yaml").write_text(wrong)
    line = wrong[: wrong.index(change[1])].count("\n") + 1
    refused(tmp_path, words.replace("{line}", str(line)), "run", "e.yaml")


def test_unknown_names(tmp_path: Path) -> None:
    refused(tmp_path, "did you mean 'latency-spike'?", "run", "latency-spik")
    refused(tmp_path, "monkeyproof list", "run", "no-such-thing")
    refused(tmp_path, "cannot be read", "run", "missing.yaml")
    refused(tmp_path, "no such folder", "report", "nowhere")
    refused(tmp_path, "Invalid value for '--healer'", "run", "--healer", "dentist")


def test_target_that_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(TARGET)
    (tmp_path / "g.jsonl").write_text('{"body": {}, "expect": 1}\n')
    done = monkeyproof(tmp_path, "run", "latency-spike", "--target", "t.yaml", "--out", "out")
    assert done.returncode == 2, done
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_target_without_golden_set(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(TARGET)
    done = monkeyproof(tmp_path, "run", "latency-spike", "--target", "t.yaml", "--out", "out")
    assert done.returncode == 2, done
    assert "g.jsonl" in done.stderr


def test_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = monkeyproof(tmp_path, "target", "up", "--port", str(port))
    assert done.returncode == 2, done
    assert str(port) in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert monkeyproof(tmp_path, "target", "status").returncode == 1


def test_folder_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(TARGET)
    refused(tmp_path, "not an empty folder", "run", "latency-spike", "--out", ".")


def test_nothing_to_revert_and_nothing_up(tmp_path: Path) -> None:
    assert "Nothing is open" in monkeyproof(tmp_path, "revert").stdout
    assert "was not up" in monkeyproof(tmp_path, "target", "down").stdout
