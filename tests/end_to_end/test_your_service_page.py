"""docs/your-service.md, word for word: its files, its commands, and a real ``mlflow models serve``."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import monkeyproof
from test_own_service import accepts, free_port

from monkeyproof.clock import wait_for

PAGE = Path(__file__).parents[2] / "docs" / "your-service.md"
FILE = re.compile(r"`([\w.]+)`:\n\n```\w+\n(.*?)```", re.DOTALL)
ENTRY = re.compile(r"```yaml\n(extensions:\n.*?)```", re.DOTALL)
CONTROL = re.compile(r"```yaml\n(controls:\n.*?)```", re.DOTALL)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def page(tmp_path: Path) -> Iterator[str]:
    """The page with a free port in it, its files written, and its service up."""
    port = free_port()
    text = PAGE.read_text(encoding="utf-8").replace("5001", str(port))
    files = dict(FILE.findall(text))
    assert set(files) == {"train.py", "scorer.yaml", "frozen.yaml"}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    train, serve = (line for line in commands(text) if "python" in line or "mlflow" in line)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(shlex.split(train), cwd=tmp_path, env=environment, check=True)
    with (tmp_path / "serve.log").open("w") as log:
        service = subprocess.Popen(
            shlex.split(serve.removesuffix("&")),
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        assert wait_for(lambda: accepts(port), within_s=60), (tmp_path / "serve.log").read_text()
        yield text
    finally:
        for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGKILL):
            os.killpg(service.pid, number)
        service.wait(10)


def commands(text: str) -> list[str]:
    return re.findall(r"^ {4}(\S.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)


def test_the_page(page: str, tmp_path: Path) -> None:
    plain, named, gate, revert = (
        shlex.split(line)[1:] for line in commands(page) if line.startswith("monkeyproof")
    )

    assert outcomes(tmp_path, "plain", plain) == (0, ["unproven"])
    assert outcomes(tmp_path, "named", named) == (0, ["fault_removed"])
    (entry,), (control,) = ENTRY.findall(page), CONTROL.findall(page)
    with (tmp_path / "frozen.yaml").open("a") as file:
        file.write(entry)
    assert outcomes(tmp_path, "gate", gate) == (1, ["fault_removed", "fault_removed"])
    done = monkeyproof(tmp_path, *revert)
    assert done.returncode == 0, done.stderr

    with (tmp_path / "frozen.yaml").open("a") as file:
        file.write(control)
    done = subprocess.run(
        [Path(sys.executable).parent / "chaos", "run", "frozen.yaml"],
        cwd=tmp_path,
        env=os.environ | {"MONKEYPROOF_TARGET": "scorer.yaml"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Outcome: fault_removed" in done.stdout + done.stderr


def outcomes(folder: Path, out: str, words: list[str]) -> tuple[int, list[str]]:
    done = monkeyproof(folder, *words, "--out", out, "--no-tracking")
    assert (folder / out / "results.json").exists(), done.stdout + done.stderr
    results = json.loads((folder / out / "results.json").read_text())
    return done.returncode, [trial["recovery"]["outcome"] for trial in results["trials"]]
