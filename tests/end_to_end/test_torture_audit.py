"""What tests/torture/torture.py looks with: whatever a fault could leave is seen, and what is as it was is not."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from torture_audit import Outside
from torture_processes import MARK

from monkeyproof.clock import wait_for
from monkeyproof.config.target_file import TargetFile
from monkeyproof.runtime.process_ref import reference_text
from monkeyproof.targets.opening import open_target
from monkeyproof.targets.port import (
    ArtifactFiles,
    Pins,
    Publishing,
    Registry,
    Replicas,
    StartCondition,
    Starts,
    Target,
    require,
)

pytestmark = pytest.mark.stack


@pytest.fixture
def target(chaos_target: TargetFile) -> Iterator[Target]:
    opened = open_target(chaos_target.path)
    yield opened
    opened.close()


@contextmanager
def other_limit(target: Target) -> Iterator[None]:
    pid = require(target, Replicas).list()[0].pid
    assert pid is not None
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def other_bytes(target: Target) -> Iterator[None]:
    path = require(target, ArtifactFiles).file_of("1")
    before = path.read_bytes()
    path.write_bytes(before[:-1])
    yield
    path.write_bytes(before)


@contextmanager
def another_file(target: Target) -> Iterator[None]:
    path = require(target, ArtifactFiles).file_of("1").with_name("another")
    path.touch()
    yield
    path.unlink()


@contextmanager
def other_tag(target: Target) -> Iterator[None]:
    require(target, Publishing).set_tag("1", "n", "1")
    yield
    require(target, Publishing).set_tag("1", "n", "2000")


@contextmanager
def other_champion(target: Target) -> Iterator[None]:
    registry = require(target, Registry)
    before = registry.champion()
    registry.set_champion("3")
    yield
    registry.set_champion(before)


@contextmanager
def another_version(target: Target) -> Iterator[None]:
    publishing, model = require(target, Publishing), require(target, ArtifactFiles).file_of("1")
    publishing.publish(model, "audit", {})
    yield
    publishing.withdraw("audit")


@contextmanager
def a_pin(target: Target) -> Iterator[None]:
    require(target, Pins).pin("replica-2", "3")
    yield
    require(target, Pins).unpin("replica-2")


@contextmanager
def a_held_start(target: Target) -> Iterator[None]:
    starts = require(target, Starts)
    starts.end("replica-3", StartCondition(60.0), lease_s=30.0)
    yield
    starts.release("replica-3")


@contextmanager
def another_environment(target: Target) -> Iterator[None]:
    starts = require(target, Starts)
    starts.end("replica-3", StartCondition(0.0, {"MONKEYPROOF_AUDIT": "1"}), lease_s=30.0)
    yield
    starts.release("replica-3")


LEFT: Mapping[Callable[[Target], AbstractContextManager[None]], tuple[str, ...]] = {
    other_limit: ("has other limits: Max file size",),
    other_bytes: ("model.pkl was",),
    another_file: ("another is more than there was",),
    other_tag: ("version shuttle/1 was",),
    other_champion: ("alias champion was 2 and is 3", "replica-1 answers with version 3"),
    another_version: ("version shuttle/", "run ", "file "),
    a_pin: ("replica-2 is pinned to version 3",),
    a_held_start: ("the start of replica-3 is held", "3 scoring processes", "replica-3 does not answer"),
    another_environment: ("has another environment: ", "MONKEYPROOF_AUDIT=1"),
}


def test_the_audit_finds_whatever_a_fault_could_leave(target: Target, tmp_path: Path) -> None:
    outside = Outside(target.file, tmp_path)

    def looks() -> str:
        return "; ".join(outside.faults() + outside.unserved())

    assert wait_for(lambda: not looks(), within_s=15), looks()
    for change, words in LEFT.items():
        with change(target):
            assert wait_for(lambda: all(one in looks() for one in words), within_s=15), (words, looks())  # noqa: B023
        assert wait_for(lambda: not looks(), within_s=15), (change.__name__, looks())


def test_a_stressor_is_residue_of_its_own_round_alone(target: Target, tmp_path: Path) -> None:
    outside = Outside(target.file, tmp_path)
    arguments = ["--id", "audit", "--for-s", "60", "--owner", reference_text(os.getpid()), "--busy-share", "0.01"]
    stressor = subprocess.Popen(
        [sys.executable, "-m", "monkeyproof.faults.support.stressors.cpu", *arguments],
        env={**os.environ, MARK: str(tmp_path / "round-1")},
        stdout=subprocess.DEVNULL,
    )
    try:
        assert wait_for(lambda: any("stressors.cpu" in one for one in outside.faults()), within_s=5)
        assert outside.strays(tmp_path / "round-1")
        assert outside.strays(tmp_path / "round-2") == []
        assert Outside(target.file, tmp_path / "elsewhere").faults() == []
    finally:
        stressor.kill()
        stressor.wait()
    assert outside.faults() == []
