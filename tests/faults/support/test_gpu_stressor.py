"""The stressor on a GPU: memory is really gone, for others as well, and comes back however the stressor ends.

Needs nothing but pytest and the CUDA driver, so that it runs on a bare machine that has a GPU:

    PYTHONPATH=src python3 -m pytest -c /dev/null --noconftest -q -ra tests/faults/support/test_gpu_stressor.py
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from monkeyproof.faults.support.stressors.cuda import CUDA, NoCuda, library, seen_from_outside
from monkeyproof.faults.support.stressors.gpu import MIB, fill
from monkeyproof.runtime.process_ref import reference_text


def until(condition: Callable[[], bool], within_s: float = 10.0) -> bool:
    ends_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > ends_s:
            return False
        time.sleep(0.02)
    return True


@dataclass
class Pieces:
    """Memory in pieces, as after hours of use."""

    free_bytes: list[int]
    taken: list[int] = field(default_factory=list)

    def take(self, size_bytes: int) -> bool:
        for index, one in enumerate(self.free_bytes):
            if one >= size_bytes:
                self.free_bytes[index] -= size_bytes
                self.taken.append(size_bytes)
                return True
        return False


class NeverOver:
    def why_over(self) -> str:
        return ""


@pytest.mark.parametrize(
    ("pieces_mib", "wanted_mib", "least_mib", "most_mib"),
    [([4096], 1000, 998, 1000), ([100, 60, 30], 150, 140, 150), ([100], 500, 98, 100), ([100], 0, 0, 0)],
)
def test_memory_in_pieces_is_taken_as_well_and_never_more_than_wanted(
    pieces_mib: list[int], wanted_mib: int, least_mib: int, most_mib: int
) -> None:
    device: Any = Pieces([one * MIB for one in pieces_mib])
    monitor: Any = NeverOver()
    taken = fill(device, wanted_mib * MIB, monitor)
    assert taken == sum(device.taken)
    assert least_mib * MIB <= taken <= most_mib * MIB


@pytest.fixture
def gpu() -> None:
    try:
        library(CUDA)
    except NoCuda as error:
        pytest.skip(str(error))


@pytest.fixture
def owner() -> Iterator[subprocess.Popen[bytes]]:
    one = subprocess.Popen(["/bin/sleep", "600"])
    yield one
    one.kill()
    one.wait()


def stressor(owner: subprocess.Popen[bytes], share: float, for_s: float = 300.0) -> tuple[Any, dict[str, Any]]:
    child = subprocess.Popen(
        [
            *(
                sys.executable,
                "-m",
                "monkeyproof.faults.support.stressors.gpu",
                "--id",
                "test",
                "--for-s",
                str(for_s),
            ),
            *("--owner", reference_text(owner.pid), "--share", str(share), "--leave-mib", "64"),
        ],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    said = json.loads(child.stdout.readline())
    assert "error" not in said, said
    return child, said


def free_bytes(bus_id: str) -> int:
    found = seen_from_outside(bus_id)
    if found is None:
        pytest.skip("libnvidia-ml.so.1, which shows memory from outside, is not here")
    return found.free_bytes


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("how", ["told to", "killed", "its owner is killed"])
def test_memory_is_taken_and_given_back(owner: subprocess.Popen[bytes], how: str) -> None:
    child, said = stressor(owner, 0.5)
    try:
        taken = said["taken_bytes"]
        assert taken >= 0.45 * said["free_before_bytes"]
        assert said["free_before_bytes"] - said["free_after_bytes"] >= 0.95 * taken
        held = free_bytes(said["bus_id"])
        assert said["monitor_free_before_bytes"] - held >= 0.9 * taken
        (owner if how == "its owner is killed" else child).send_signal(
            signal.SIGTERM if how == "told to" else signal.SIGKILL
        )
        ended_s = time.monotonic()
        child.wait(20)
        assert until(lambda: free_bytes(said["bus_id"]) >= held + 0.9 * taken), "the memory did not come back"
        print(f"{how}: {taken / MIB:.0f} MiB were back {time.monotonic() - ended_s:.2f} s later")
    finally:
        child.kill()
        child.wait()


@pytest.mark.usefixtures("gpu")
def test_it_ends_when_its_time_is_over(owner: subprocess.Popen[bytes]) -> None:
    child, said = stressor(owner, 0.1, for_s=1.0)
    assert said["taken_bytes"] > 0
    assert child.wait(20) == 0


@pytest.mark.usefixtures("gpu")
def test_others_run_out_of_memory(owner: subprocess.Popen[bytes]) -> None:
    """What an inference service sees: a tensor that fitted before does not fit any more, and fits afterwards."""
    pytest.importorskip("torch")
    code = (
        "import sys, torch\n"
        "try:\n torch.empty(int(sys.argv[1]), dtype=torch.uint8, device='cuda')\n"
        "except torch.OutOfMemoryError:\n sys.exit(3)\n"
    )

    def asks_for(size_bytes: int) -> int:
        return subprocess.run(
            [sys.executable, "-c", code, str(size_bytes)], env=os.environ, check=False
        ).returncode

    child, said = stressor(owner, 0.9)
    try:
        wanted = said["free_before_bytes"] // 2
        assert asks_for(wanted) == 3
    finally:
        child.kill()
        child.wait()
    assert until(lambda: free_bytes(said["bus_id"]) > wanted)
    assert asks_for(wanted) == 0
