"""The load, in its own process, against a real service on the loopback."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import probe_service
import pytest

from monkeyproof.clock import wait_for
from monkeyproof.probes.load.generator import USERS_MAX, statistics, user_count
from monkeyproof.runtime.process_group import ProcessGroup


@pytest.fixture
def service() -> Iterator[probe_service.Handle]:
    with probe_service.running() as handle:
        yield handle


@contextlib.contextmanager
def loading(folder: Path, port: int, rate_per_s: float) -> Iterator[subprocess.Popen[bytes]]:
    target = probe_service.write_target(folder, port, more=f"load: {{rate_per_s: {rate_per_s}}}")
    arguments = ["--target", str(target), "--out", str(folder), "--seed", "1"]
    with ProcessGroup() as group:
        yield group.start(
            [sys.executable, "-m", "monkeyproof.probes.load.generator", *arguments], log=folder / "load.log"
        )


def said(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(FileNotFoundError):
        found: dict[str, Any] = json.loads((folder / "load.json").read_bytes())
        return found
    return {"requests": -1}


def test_it_keeps_its_rate_and_writes_its_statistics(service: probe_service.Handle, tmp_path: Path) -> None:
    with loading(tmp_path, service.port, 40) as process:
        assert wait_for(lambda: said(tmp_path)["requests"] >= 80, within_s=20), (tmp_path / "load.log").read_text()
        process.terminate()
        assert process.wait(10) == 0
    found = said(tmp_path)
    seen = service.tell("good")["seen"]
    assert found["requests"] <= seen <= found["requests"] + user_count(40)
    assert found["failures"] == 0
    assert found["requests_per_s"] == pytest.approx(40, rel=0.15)
    assert found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"] < 1000
    assert found["ended_monotonic_s"] - found["started_monotonic_s"] >= 1.9


def test_failures_are_counted_and_do_not_end_it(service: probe_service.Handle, tmp_path: Path) -> None:
    service.tell("error")
    with loading(tmp_path, service.port, 40) as process:
        assert wait_for(lambda: said(tmp_path)["requests"] >= 40, within_s=20)
        service.tell("dark")
        dark_s = time.monotonic()
        assert wait_for(lambda: said(tmp_path)["ended_monotonic_s"] > dark_s + 1.0, within_s=10)
        assert process.poll() is None
    assert said(tmp_path)["failures"] == said(tmp_path)["requests"] > 60


def test_no_load_is_zeros(tmp_path: Path) -> None:
    with loading(tmp_path, 1, 0) as process:
        assert wait_for((tmp_path / "load.json").exists, within_s=20)
        process.terminate()
        assert process.wait(5) == 0
    assert (said(tmp_path)["requests"], said(tmp_path)["requests_per_s"]) == (0, 0.0)


def test_a_kill_loses_a_second_at_most(service: probe_service.Handle, tmp_path: Path) -> None:
    with loading(tmp_path, service.port, 40) as process:
        assert wait_for(lambda: said(tmp_path)["requests"] >= 80, within_s=20)
        process.kill()
        process.wait(5)
    seen = service.tell("good")["seen"]
    assert 80 <= said(tmp_path)["requests"] <= seen <= said(tmp_path)["requests"] + 40 * 1.5 + user_count(40)


def test_it_ends_by_itself_when_its_parent_is_killed(service: probe_service.Handle, tmp_path: Path) -> None:
    target = probe_service.write_target(tmp_path, service.port)
    arguments = ["--target", str(target), "--out", str(tmp_path), "--seed", "1"]
    argv = [sys.executable, "-m", "monkeyproof.probes.load.generator", *arguments]
    start = f"import subprocess, time; print(subprocess.Popen({argv!r}).pid, flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert wait_for(lambda: said(tmp_path)["requests"] > 0, within_s=20)
    finally:
        parent.kill()
        parent.communicate(timeout=5)
    assert wait_for(lambda: not alive(child), within_s=5)


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def test_bad_input_is_one_clear_message_and_exit_2(tmp_path: Path) -> None:
    target = probe_service.write_target(tmp_path, 1)
    (tmp_path / "golden.jsonl").write_text("")
    argv = [
        sys.executable,
        "-m",
        "monkeyproof.probes.load.generator",
        "--target",
        str(target),
        "--out",
        str(tmp_path),
    ]
    ended = subprocess.run([*argv, "--seed", "1"], capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 2
    assert "golden.jsonl:1: the golden set is empty" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_users_are_bounded() -> None:
    assert [user_count(rate) for rate in (0.5, 1, 20, 2000)] == [1, 1, 10, USERS_MAX]
    assert statistics(None, 1.0, 1.0, 0.0)["requests_per_s"] == 0.0
