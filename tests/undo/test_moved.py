"""Undo logs that an earlier version wrote are undone by this one."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from monkeyproof.safety.replay import replay
from monkeyproof.undo.entries import OpenFault, read_log
from monkeyproof.undo.log import undo_dir
from monkeyproof.undo.moved import MOVED

LOG_OF_0_1_0 = Path(__file__).with_name("log_of_0_1_0.jsonl")
"""Written by 0.1.0 while its embedded target had these faults, one after the other; only its paths are changed."""
UNDO_FUNCTIONS_OF_0_1_0 = {
    "monkeyproof.faults.ballast:end",
    "monkeyproof.faults.foreign:run_activities",
    "monkeyproof.faults.models:put_back_bits",
    "monkeyproof.faults.models:put_back_file",
    "monkeyproof.faults.network:remove_toxic",
    "monkeyproof.faults.noop:undo_nothing",
    "monkeyproof.faults.registry:put_back_version",
    "monkeyproof.faults.registry:restore_champion",
    "monkeyproof.faults.registry:stop_flipping",
    "monkeyproof.faults.registry:unpin",
    "monkeyproof.faults.registry:unspoil",
    "monkeyproof.faults.replicas:release_starts",
    "monkeyproof.faults.replicas:resume",
    "monkeyproof.faults.resources:restore_limit",
    "monkeyproof.faults.resources:start_with_right_clock",
    "monkeyproof.faults.versions:withdraw",
}
FAULTS = read_log(LOG_OF_0_1_0).open


def test_the_log_has_every_undo_function_of_its_version() -> None:
    entries = [json.loads(line) for line in LOG_OF_0_1_0.read_text().splitlines()]
    assert {one["undo"]["function"] for one in entries if one["step"] == "intent"} == UNDO_FUNCTIONS_OF_0_1_0
    assert read_log(LOG_OF_0_1_0).unreadable == ()
    assert set(MOVED) <= UNDO_FUNCTIONS_OF_0_1_0


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.fault)
def test_an_undo_of_an_earlier_version_is_found_and_takes_its_arguments(fault: OpenFault) -> None:
    inspect.signature(fault.undo.resolved()).bind(object(), **fault.undo.arguments)


@pytest.mark.parametrize("moved", MOVED.values(), ids=lambda moved: moved.to)
def test_no_function_moved_to_a_place_that_it_left(moved) -> None:
    assert moved.to not in MOVED


def test_a_log_of_an_earlier_version_is_replayed(tmp_path: Path) -> None:
    """Those whose undo asks no target: the first and the last steps of the others are the same."""
    flag, experiment, target_file = tmp_path / "flag", tmp_path / "experiment.json", tmp_path / "target.yaml"
    flag.touch()
    target_file.touch()
    lower = {"type": "process", "path": "rm", "arguments": ["flag"]}
    experiment.write_text(
        json.dumps({"method": [], "rollbacks": [{"type": "action", "name": "lower the flag", "provider": lower}]})
    )
    lines = [
        line.replace("/home/user/.monkeyproof/target/target.yaml", str(target_file))
        .replace("/home/user/.monkeyproof/undo/out-001-flag-elephant-1.experiment.json", str(experiment))
        .replace("/home/user/experiments", str(tmp_path))
        for line in LOG_OF_0_1_0.read_text().splitlines(keepends=True)
        if any(f'"id":"{fault.id}"' in line for fault in FAULTS if fault.fault in _NEED_NO_TARGET)
    ]
    log = undo_dir() / "trial.jsonl"
    log.write_text("".join(lines))
    found = replay(log)
    assert not found.failed
    assert {fault.fault for fault, _ in found.done} == _NEED_NO_TARGET
    assert not flag.exists()
    assert not log.exists()


_NEED_NO_TARGET = {"noop.nothing", "resources.steal_cpu", "foreign.raise the flag"}
