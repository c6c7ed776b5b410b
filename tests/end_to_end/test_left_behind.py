"""Actions that leave something behind and say nothing: the campaign ends with 5, and names all of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from monkeyproof import paths
from monkeyproof.clock import wait_for
from monkeyproof.config.target_file import TargetFile
from monkeyproof.record.history import EVENTS_FILE, Kind, parse_events
from monkeyproof.runtime.procfs import command_line
from monkeyproof.targets.opening import open_target
from monkeyproof.targets.port import Links, Registry, Resettable, Target, require
from monkeyproof.undo import log as undo_log

pytestmark = [pytest.mark.stack, pytest.mark.timeout(200)]

LEAVES = """
import os, signal, subprocess, sys, time
from pathlib import Path
from monkeyproof.targets.opening import open_target
from monkeyproof.targets.port import Links, Registry, Replicas, Toxic, require

DAEMON = '''
import os
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
open("daemon.pid", "w").write(str(os.getpid()))
os.execv("/bin/sleep", ["sleep", "600"])
'''
kept = []

def everything(target, artifact, process):
    one = open_target(Path(target))
    kept.append(one)  # A fault on a link ends with the connection that added it.
    parameters = {"low_ms": 1.0, "high_ms": 2.0, "share": 0.1, "seed": 1}
    require(one, Links).add(Toxic("replica->registry", "latency", parameters, "forgotten"))
    registry = require(one, Registry)
    registry.set_champion(next(found.version for found in registry.versions() if found.version != "2"))
    require(one, Replicas).pause("replica-2")
    with open(artifact, "ab") as file:
        file.write(b"!")
    os.kill(process, signal.SIGSTOP)
    daemon()

def daemon():
    nowhere = subprocess.DEVNULL
    subprocess.run([sys.executable, "-c", DAEMON], check=True, stdout=nowhere, stderr=nowhere)

def daemon_and_wait():
    daemon()
    time.sleep(60)

def and_die(**arguments):
    everything(**arguments)
    os.kill(os.getpid(), signal.SIGKILL)
"""
OURS = "provider: {{type: python, module: {}, func: {}}}"
STEADY = OURS.format("monkeyproof.probes.steady_state", "slo_holds")
EXPERIMENT = f"""
title: An activity that leaves things behind
description: Beside a fault that is reverted.
controls: [{{name: monkeyproof, provider: {{type: python, module: monkeyproof.control}}}}]
steady-state-hypothesis:
  title: Right answers, fast
  probes:
    - {{type: probe, name: slo-holds, tolerance: true, {STEADY}}}
method:
  - type: action
    name: delay
    provider:
      type: python
      module: monkeyproof.faults.network
      func: add_latency
      arguments: {{link: client->gateway, low_ms: 1.0, high_ms: 2.0}}
  - {{type: probe, name: leave, {OURS.format("leave", "FUNCTION")}}}
rollbacks:
  - {{type: action, name: revert, {OURS.format("monkeyproof.injection", "revert")}}}
"""


@pytest.fixture
def target(chaos_target: TargetFile) -> Iterator[Target]:
    opened = open_target(chaos_target.path)
    assert require(opened, Registry).champion() == "2"
    yield opened
    require(opened, Resettable).reset()
    opened.close()


@pytest.fixture
def artifact() -> Iterator[Path]:
    path = sorted((paths.target_dir() / "artifacts").rglob("model.pkl"))[0]
    before = path.read_bytes()
    yield path
    path.write_bytes(before)


@pytest.fixture
def source(target: Target) -> Iterator[int]:
    """The process that new records come from: a part of the target that no fault pauses."""
    of_target = str(target.file.path.parent).encode()
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    (pid,) = [
        pid
        for pid in pids
        if b"monkeyproof.targets.local.workload.source" in command_line(pid)
        and of_target in b"".join(command_line(pid))
    ]
    yield pid
    os.kill(pid, signal.SIGCONT)


@pytest.fixture
def folder(tmp_path: Path, target: Target) -> Iterator[Path]:
    """With the target's file, but short windows; a daemon that is left in it ends with the test."""
    described = yaml.safe_load(target.file.path.read_text())
    described["predict"]["golden"] = str(target.file.predict.golden)
    described |= {
        "slo": {
            "latency_ms": 250,
            "objective": 0.95,
            "stable_for_s": 0.2,
            "recovery": {"within_s": 5, "share": 0.9},
        },
        "windows": {"baseline_s": 0.5, "horizon_s": 1, "after_revert_s": 0.5},
        "prober": {"rate_per_s": 100},
        "load": {"rate_per_s": 0},
    }
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(described))
    (tmp_path / "leave.py").write_text(LEAVES)
    yield tmp_path
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        os.kill(int((tmp_path / "daemon.pid").read_text()), signal.SIGKILL)


def start(folder: Path, function: str, command: list[str], **arguments: object) -> subprocess.Popen[str]:
    experiment = yaml.safe_load(EXPERIMENT)
    experiment["method"][1]["provider"] |= {"func": function, "arguments": arguments}
    (folder / "e.yaml").write_text(yaml.safe_dump(experiment))
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
            "MONKEYPROOF_TARGET": str(folder / "t.yaml"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


# Without a healer: a quick Elephant would roll the champion back, and restart what is paused.
RUN = ["monkeyproof.cli", "run", "e.yaml", "--target", "t.yaml", "--out", "out", "--trials", "2", "--no-tracking"]
RUN += ["--healer", "none"]


def told(folder: Path) -> list[str]:
    (path,) = folder.glob(f"*/**/{EVENTS_FILE}")
    return [str(one.data["what"]) for one in parse_events(path.read_bytes()) if one.kind is Kind.RESIDUE_FOUND]


def everything_is_named(folder: Path, output: str, source: int, *, on_link: bool) -> None:
    daemon = int((folder / "daemon.pid").read_text())
    wanted = [
        "replica-2 is still paused",
        f"process {source} is stopped: {sys.executable} -m monkeyproof.targets.local.workload.source",
        "the champion is version 3, and was 2",
        "model.pkl is not what it was",
        f"process {daemon} still runs: sleep",
    ] + ["the fault forgotten is still on a link"] * on_link
    found = told(folder)
    assert len(found) == len(wanted), found
    for words in wanted:
        assert sum(words in one for one in found) == 1, found
        assert words in " ".join(output.splitlines()[-1:]), output
    assert f"kill -CONT {source}" in output
    (trial,) = json.loads((folder / "out" / "results.json").read_text())["trials"]
    assert len(trial["not_reverted"]) == len(wanted)
    assert undo_log.open_logs() == []


def test_everything_that_an_action_leaves_is_named(
    folder: Path, target: Target, artifact: Path, source: int
) -> None:
    arguments = {"target": str(target.file.path), "artifact": str(artifact), "process": source}
    process = start(folder, "everything", RUN, **arguments)
    output = process.communicate(timeout=100)[0]
    assert process.returncode == 5, output
    everything_is_named(folder, output, source, on_link=True)
    # A champion of unknown origin is another user's: no undo overwrites it.
    assert require(target, Registry).champion() == "3"


@pytest.mark.slow
def test_residue_of_a_worker_that_died_is_named(folder: Path, target: Target, artifact: Path, source: int) -> None:
    arguments = {"target": str(target.file.path), "artifact": str(artifact), "process": source}
    process = start(folder, "and_die", RUN, **arguments)
    output = process.communicate(timeout=100)[0]
    assert process.returncode == 5, output
    assert "the trial's worker died (status -9" in output
    # The fault on the link went with the connection.
    everything_is_named(folder, output, source, on_link=False)
    assert not require(target, Links).active()
    assert require(target, Registry).champion() == "3"


@pytest.mark.slow
def test_plain_chaos_run_ends_with_5_as_well(folder: Path) -> None:
    process = start(folder, "daemon", ["chaostoolkit", "--no-version-check", "run", "e.yaml"])
    output = process.communicate(timeout=100)[0]
    assert process.returncode == 5, output
    assert f"left behind after the trial: process {(folder / 'daemon.pid').read_text()} still runs" in output
    assert (folder / "journal.json").exists()


@pytest.mark.slow
def test_stop_reports_residue_of_the_campaign_that_it_ended(folder: Path) -> None:
    process = start(folder, "daemon_and_wait", RUN)
    assert wait_for((folder / "daemon.pid").exists, within_s=60)
    stop = subprocess.run(
        [sys.executable, "-m", "monkeyproof.cli", "stop"], capture_output=True, text=True, timeout=100, check=False
    )
    try:
        output = process.communicate(timeout=100)[0]
        assert process.returncode == 5, output
        assert stop.returncode == 5, stop.stdout
        assert "left behind after the trial: process" in stop.stderr
    finally:
        (paths.home() / "stop").unlink(missing_ok=True)
