"""The observers of a trial, on a target that is not there: what is started is ended, and what died is named."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from campaign_world import target_file

from monkeyproof.clock import wait_for
from monkeyproof.errors import UsageError
from monkeyproof.record.history import EVENTS_FILE
from monkeyproof.runtime import process_ref, procfs
from monkeyproof.trial.sidecars import Sidecars, start_sidecars


@pytest.fixture
def observers(tmp_path: Path) -> Iterator[Sidecars]:
    (tmp_path / "g.jsonl").write_text('{"body": {}, "expect": 0}\n' * 100)
    target = target_file(tmp_path, more="load: {rate_per_s: 0}")
    started = start_sidecars(
        {"folder": str(tmp_path / "runs" / "trial"), "target": str(target.path), "seed": 1, "arm": "elephant"}
    )
    yield started
    started.close()


def at_work(folder: Path) -> list[str]:
    """Modules of the processes whose command line names the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(folder) in words:
            found.append(words[2].decode())
    return found


def test_discard_leaves_neither_process_nor_folder(observers: Sidecars, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "trial"
    # A moment after its start a process has no command line yet.
    assert wait_for(lambda: len(at_work(folder)) == 3, within_s=10)
    assert folder.stat().st_mode & 0o077 == 0
    observers.discard()
    assert at_work(folder) == []
    assert not folder.exists()


def test_the_others_continue_when_some_are_ended(observers: Sidecars, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "trial"
    assert wait_for(lambda: len(at_work(folder)) == 3, within_s=10)
    observers.end("healer", "load")
    observers.end("healer")
    assert at_work(folder) == ["monkeyproof.probes.prober.prober"]
    assert observers.dead() == {}


def test_a_sidecar_that_dies_is_named_with_its_last_line(observers: Sidecars) -> None:
    """The Elephant heals the embedded target only, and says so as soon as it may look."""
    observers.release_healer()
    assert wait_for(lambda: "healer" in observers.dead(), within_s=20)
    with pytest.raises(UsageError, match=r"the healer did not start: .*see .*healer\.log"):
        observers.wait_until_working()


@pytest.mark.usefixtures("observers")
def test_sidecars_know_their_owner(tmp_path: Path) -> None:
    """What they could ask themselves, who their parent is, may be wrong by the time they ask."""
    assert wait_for(lambda: len(at_work(tmp_path / "runs" / "trial")) == 3, within_s=10)
    told = [procfs.command_line(pid) for pid in procfs.children()]
    assert sum(os.fsencode(process_ref.reference_text(os.getpid())) in words for words in told) == 3


def test_a_stopped_abort_monitor_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "g.jsonl").write_text('{"body": {}, "expect": 0}\n' * 100)
    target = target_file(tmp_path, more="abort_if: [{sli_below: 0.5, for_s: 600}]").path
    plan = {"folder": str(tmp_path / "trial"), "target": str(target), "seed": 1, "arm": "none"}
    monkeypatch.setattr("monkeyproof.trial.sidecars.SILENT_S", 0.7)
    started = start_sidecars(plan)
    try:
        (tmp_path / "trial" / EVENTS_FILE).touch()
        started.start_abort_monitor(target)
        assert not wait_for(lambda: bool(started.why_unwatched()), within_s=0.9)
        (sentry,) = [
            pid for pid in procfs.children() if b"monkeyproof.probes.abort.monitor" in procfs.command_line(pid)
        ]
        os.kill(sentry, signal.SIGSTOP)
        assert wait_for(lambda: f"(pid {sentry}) is stopped or hung" in started.why_unwatched(), within_s=10)
        # It checks nothing any more, also if a signal wakes it.
        assert wait_for(lambda: "sentry" in started.dead(), within_s=5)
    finally:
        started.close()


def test_an_unknown_arm(tmp_path: Path) -> None:
    plan = {"folder": str(tmp_path / "trial"), "target": "t.yaml", "seed": 1, "arm": "mouse"}
    with pytest.raises(UsageError, match="no healer 'mouse'; there are: none, elephant"):
        start_sidecars(plan)
    assert not (tmp_path / "trial").exists()
