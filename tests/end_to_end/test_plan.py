"""``monkeyproof plan``: says what a run would do, by asking the very code that would do it, and does nothing."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from short_trials import with_hold, with_windows
from test_own_service import EXPERIMENT, free_port

from monkeyproof import paths
from monkeyproof.clock import Anchor
from monkeyproof.config.target_file import TargetFile, read_target_file
from monkeyproof.injection.inject import Context, Injection, inject, set_current
from monkeyproof.record.history import HistoryWriter, Kind, parse_events
from monkeyproof.targets.opening import open_target
from monkeyproof.targets.port import Links, Registry, Replicas, require
from monkeyproof.trial.dry_run import DescribedTarget
from monkeyproof.types import Evidence
from monkeyproof.undo.log import UndoLog

TARGET = """\
name: ours
predict: {{url: "http://127.0.0.1:{link}/predict", golden: golden.jsonl, answer: $.y}}
links: {{users: {{listen: "127.0.0.1:{link}", forward: "127.0.0.1:{service}", protocol: http}}}}
allow_faults: [network]
"""
FOREIGN = """\
title: Another author's
description: Nothing of ours.
method:
  - type: action
    name: freeze
    provider: {type: process, path: /bin/kill, arguments: "-STOP 1 --password hunter2"}
rollbacks:
  - type: action
    name: thaw
    provider: {type: process, path: /bin/kill, arguments: "-CONT 1"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A target file and experiments; no service runs, for none is needed."""
    lines = "".join(json.dumps({"body": {"x": x}, "expect": 2 * x}) + "\n" for x in range(100))
    (tmp_path / "golden.jsonl").write_text(lines)
    (tmp_path / "t.yaml").write_text(TARGET.format(link=free_port(), service=free_port()))
    (tmp_path / "e.yaml").write_text(EXPERIMENT)
    (tmp_path / "f.yaml").write_text(FOREIGN)
    return tmp_path


def plan(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "monkeyproof.cli", "plan", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


def test_a_plan_shows_everything_and_starts_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    done = plan(folder, "e.yaml", "--target", "t.yaml", "--trials", "2", "--shams", "1")
    assert done.returncode == 4, done.stdout  # The sham's family is not allowed either, as in a run.
    assert "would refuse do-nothing" in done.stdout
    assert "3 trials against ours" in done.stdout
    assert "limits: replicas_down 1, rows_share 0.5, latency_ms 2000" in done.stdout
    assert done.stdout.count("injects network.add_latency on users") == 2
    for words in (
        "family  network",
        "with    low_ms 150, high_ms 200, share 1, direction request, ",
        "held    until a recovery is seen, for at most 15 s",
        "limit   latency_ms: 200 of at most 2000",
        "undo    monkeyproof.faults.network:remove_toxic(link=users, toxic_id=latency-",
    ):
        assert done.stdout.count(words) == 1, (words, done.stdout)
    # The short form's steps are named once for each experiment; the long form adds none.
    added = [line.strip() for line in done.stdout.splitlines() if "adds the steps" in line]
    assert added == [
        "adds the steps of a trial: slo-holds (as the hypothesis); hold (at_most_s 6, at_least_s 4); revert; "
        "revert-whatever-is-left (as a rollback)"
    ]
    new = [path for path in sorted(folder.rglob("*")) if path not in before]
    assert [path.name for path in new if path.is_file() and path.name != "campaign.lock"] == []
    address = read_target_file(folder / "t.yaml").links["users"].listen.split(":")
    with socket.socket() as one:
        assert one.connect_ex((address[0], int(address[1]))) != 0


@pytest.mark.parametrize(
    ("change", "words", "code"),
    [
        (("[network]", "[data]"), "not injecting: target 'ours' does not allow faults of the family 'network'", 4),
        (
            ("[network]", "[network]\nlimits: {latency_ms: 199}"),
            "not injecting: the delay on users would be 200, and target 'ours' allows latency_ms 199",
            4,
        ),
        (("links: {users", "links: {others"), "link: target 'ours' has no link 'users'; it has others", 2),
    ],
)
def test_a_trial_that_would_be_refused(folder: Path, change: tuple[str, str], words: str, code: int) -> None:
    text = (folder / "t.yaml").read_text()
    assert change[0] in text
    (folder / "t.yaml").write_text(text.replace(*change))
    done = plan(folder, "e.yaml", "--target", "t.yaml")
    assert words in done.stdout
    assert "would refuse delay" in done.stdout
    assert done.returncode == code, done.stderr


def test_what_a_run_would_refuse_before_it_starts(folder: Path) -> None:
    (folder / "full").mkdir()
    (folder / "full" / "x").touch()
    done = plan(folder, "e.yaml", "--target", "t.yaml", "--out", "full")
    assert (done.returncode, done.stdout) == (2, "")
    assert "not an empty folder" in done.stderr
    (paths.home() / "stop").touch()
    done = plan(folder, "e.yaml", "--target", "t.yaml")
    assert (done.returncode, done.stdout) == (4, "")
    assert "not injecting: everything was stopped" in done.stderr


def test_an_external_fault_is_shown_without_its_arguments(folder: Path) -> None:
    done = plan(folder, "f.yaml", "--target", "t.yaml")
    assert done.returncode == 0, done.stderr
    for words in (
        "injects foreign.freeze on ours",
        "with    type process, path /bin/kill",
        "limit   none: limits do not bound external activities",
        "proof   none is named, so its trials are unproven",
        "undo    runs thaw",
    ):
        assert words in done.stdout
    assert "hunter2" not in done.stdout


def test_an_embedded_target_that_is_down_is_not_started(folder: Path) -> None:
    done = plan(folder, "replica-kill", "--arms", "none")
    assert done.returncode == 0, done.stderr
    assert "The embedded target is not up; 'run' would start it" in done.stdout
    assert "injects replicas.kill" in done.stdout
    assert not (paths.home() / "target").exists()


def test_a_planned_injection_is_not_applied(folder: Path) -> None:
    applied: list[int] = []
    (folder / "plan").mkdir()
    history = HistoryWriter(folder / "plan", Anchor(0.0, ""), "plan")
    target = DescribedTarget(read_target_file(folder / "t.yaml"))
    log = UndoLog(folder / "plan" / "undo.jsonl")
    context = Context(folder / "plan", target, history, log, 1, "none", planned=[])
    set_current(context)
    try:
        act, see = lambda: applied.append(1), lambda _: Evidence("seen")
        fault = Injection("network.x", "s", {}, act, see, None, one_shot="x")
        inject(fault)
    finally:
        set_current(None)
        log.close()
        history.close()
    assert context.planned == [fault]
    assert applied == []
    assert (folder / "plan" / "events.jsonl").read_bytes() == b""


@pytest.mark.stack
@pytest.mark.timeout(240)
def test_the_plan_names_what_the_trial_then_does(chaos_target: TargetFile, tmp_path: Path) -> None:
    target = open_target(chaos_target.path)
    try:
        champion = require(target, Registry).champion()
        starts = [one.starts for one in require(target, Replicas).list()]
        done = plan(tmp_path, "--target", str(chaos_target.path), "--arms", "none", "--seed", "11")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "monkeyproof.faults.registry:restore_champion(promoted=" in done.stdout
        assert not require(target, Links).active()
        assert require(target, Registry).champion() == champion
        assert [one.starts for one in require(target, Replicas).list()] == starts
    finally:
        target.close()
    # The same fault on the same target, in less time.
    experiment = with_hold("replica-kill", tmp_path, at_least_s=3.0, at_most_s=3.0)
    quick = with_windows(chaos_target, tmp_path, baseline_s=0.5)
    command = [sys.executable, "-m", "monkeyproof.cli", "run", str(experiment), "--arms", "none", "--seed", "11"]
    command += ["--target", str(quick.path), "--out", "out", "--no-tracking"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    (path,) = (tmp_path / "out").glob("trials/*/events.jsonl")
    (killed,) = [one.subject for one in parse_events(path.read_bytes()) if one.kind is Kind.FAULT_INTENDED]
    assert f"injects replicas.kill on {killed}\n" in done.stdout
