"""Limits are moved on real processes, processors are kept busy; all of it ends by itself when its owner does."""

# ruff: noqa: ARG001  (fixtures are asked for what they set up)

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from replica_world import SERVER, Fleet, join

from monkeyproof.clock import wait_for
from monkeyproof.errors import Refusal, UsageError
from monkeyproof.faults import resources
from monkeyproof.faults.resources.clock import find_faketime
from monkeyproof.faults.support import stressor
from monkeyproof.faults.support.stressors.rlimit import KINDS, limits_of
from monkeyproof.injection.inject import current, revert
from monkeyproof.runtime.process_ref import reference_text
from monkeyproof.targets import port

NAMES = ["replica-1", "replica-2"]


@pytest.fixture
def fleet(world) -> Iterator[Fleet]:
    object.__setattr__(world.file, "allow_faults", ("resources",))
    one = Fleet(NAMES, SERVER)
    join(world, one)
    yield one
    revert()
    one.close()


def asked(fleet: Fleet, name: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", fleet.ports[name], timeout=1)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read() == b"ok"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def intent() -> dict:
    return json.loads(current().undo.path.read_text().splitlines()[0])


def stressor_pids() -> list[int]:
    wanted = f"--owner\0{reference_text(os.getpid())}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if wanted in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_a_process_without_handles_takes_no_connection_and_has_them_back(world, fleet):
    pid = fleet.pid("replica-1")
    before = limits_of(pid, "open_files")
    found = resources.exhaust_handles("replica-1")
    assert found["data"]["free"] == 0
    assert limits_of(pid, "open_files") == (found["data"]["limit"], before[1])
    assert "a connection of our own" in found["evidence"]
    assert not asked(fleet, "replica-1")
    assert asked(fleet, "replica-2")
    assert (intent()["prior"]["limit"], intent()["lease_s"]) == (before[0], port.LEASE_S)
    assert revert() == [f"limit open_files of pid {pid}: is as it was"]
    assert limits_of(pid, "open_files") == before
    assert asked(fleet, "replica-1")
    arguments = intent()["undo"]["arguments"]
    assert resources.restore_limit(world, **arguments) == f"limit open_files of pid {pid}: is as it was"
    assert not stressor_pids()


def test_memory_beyond_the_limit_is_refused(world, fleet):
    hog = subprocess.Popen(
        [
            *(sys.executable, "-S", "-u", "-c"),
            "for _ in iter(input, ''):\n try: len(bytearray(64 << 20)); print('had it')\n"
            " except MemoryError: print('no')",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask() -> str:
        hog.stdin.write("go\n")
        hog.stdin.flush()
        return hog.stdout.readline().strip()

    fleet.processes["replica-2"].kill()
    fleet.processes["replica-2"].wait()
    fleet.processes["replica-2"], fleet.ports["replica-2"] = hog, 0
    assert ask() == "had it"
    before = limits_of(hog.pid, "address_space")
    found = resources.exhaust_memory("replica-2", spare_mib=8)
    assert found["data"]["limit_bytes"] - found["data"]["used_bytes"] == 8 * 1024 * 1024
    assert ask() == "no"
    revert()
    assert limits_of(hog.pid, "address_space") == before
    assert ask() == "had it"


def test_what_is_written_fails_as_on_a_full_disk_and_no_disk_is_filled(world, fleet, tmp_path):
    writer = subprocess.Popen(
        [
            *(sys.executable, "-S", "-u", "-c"),
            "import sys\nfor path in sys.stdin:\n"
            " try:\n  open(path.strip(), 'wb', 0).write(bytes(5000)); print('written')\n"
            " except OSError as error: print(error.errno)",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    fleet.processes["replica-2"].kill()
    fleet.processes["replica-2"].wait()
    fleet.processes["replica-2"], fleet.ports["replica-2"] = writer, 0

    def write() -> str:
        writer.stdin.write(f"{tmp_path / 'file'}\n")
        writer.stdin.flush()
        return writer.stdout.readline().strip()

    assert write() == "written"
    resources.fill_disk("replica-2")
    assert write() == "27"  # EFBIG
    assert (tmp_path / "file").stat().st_size == 0
    revert()
    assert write() == "written"


def test_a_process_that_a_full_disk_would_kill_is_spared(world, fleet):
    fleet.processes["replica-2"].kill()
    fleet.processes["replica-2"].wait()
    # Python ignores the signal, and gives it back to what it starts.
    child = subprocess.Popen(["/bin/sleep", "60"], restore_signals=True)
    fleet.processes["replica-2"], fleet.ports["replica-2"] = child, 0
    with pytest.raises(Refusal, match="would be killed by its next write"):
        resources.fill_disk("replica-2")
    assert limits_of(child.pid, "file_size")[0] == resource.RLIM_INFINITY


def test_a_limit_that_another_process_set_since_is_kept(world, fleet):
    pid = fleet.pid("replica-1")
    _, hard = limits_of(pid, "open_files")
    resources.exhaust_handles("replica-1")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (77, hard))
    (said,) = revert()
    assert said == f"limit open_files of pid {pid}: another program changed to 77 since, which is left as it is"
    assert limits_of(pid, "open_files")[0] == 77


@pytest.mark.parametrize(
    ("kind", "before", "call"),
    [
        ("open_files", 256, lambda: resources.exhaust_handles("replica-1", spare=1000)),
        ("file_size", 4096, lambda: resources.fill_disk("replica-1", most_kib=1_000_000)),
        ("file_size", 4096, lambda: resources.fill_disk("replica-1", most_kib=4)),
        ("address_space", 1 << 30, lambda: resources.exhaust_memory("replica-1", spare_mib=1024)),
    ],
)
def test_a_limit_is_never_raised_nor_set_as_it_is(world, fleet, kind, before, call):
    pid = fleet.pid("replica-1")
    hard = limits_of(pid, kind)[1]
    resource.prlimit(pid, KINDS[kind], (before, hard))
    with pytest.raises(Refusal, match=rf"has a limit {kind} of {before} already: \d+ would limit nothing"):
        call()
    assert limits_of(pid, kind) == (before, hard)
    assert not stressor_pids()


def test_evidence_says_from_where_to_where_a_limit_went(world, fleet):
    pid = fleet.pid("replica-1")
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, limits_of(pid, "file_size")[1]))
    found = resources.fill_disk("replica-1", most_kib=1)
    assert "lowered from 4096 to 1024, beyond which no file may grow" in found["evidence"]
    revert()
    found = resources.exhaust_memory("replica-1", spare_mib=8)
    assert "lowered from none to " in found["evidence"]
    assert ", which leaves 8.0 MiB beyond the " in found["evidence"]


def test_a_process_that_was_replaced_has_its_own_limit(world, fleet):
    resources.exhaust_handles("replica-1")
    pid = fleet.pid("replica-1")
    fleet.processes["replica-1"].kill()
    fleet.processes["replica-1"].wait()
    assert not [why for why in (look() for look in current().presence_checks.values()) if why]
    assert revert() == [f"limit open_files of pid {pid}: the process has ended, and its limit with it"]


def test_a_stressor_whose_owner_dies_restores_the_limit(tmp_path):
    victim = subprocess.Popen(["/bin/sleep", "60"])
    owner = subprocess.Popen(["/bin/sleep", "60"])
    before = limits_of(victim.pid, "open_files")
    holder = subprocess.Popen(
        [
            *(sys.executable, "-m", "monkeyproof.faults.support.stressors.rlimit", "--id", "x", "--for-s", "60"),
            *(
                "--owner",
                reference_text(owner.pid),
                "--process",
                reference_text(victim.pid),
                "--kind",
                "open_files",
                "--to",
                "5",
            ),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert json.loads(holder.stdout.readline()) == {"before": before[0], "lowered": 5}
        assert limits_of(victim.pid, "open_files")[0] == 5
        owner.kill()
        assert holder.wait(5) == 0
        assert limits_of(victim.pid, "open_files") == before
    finally:
        for one in (victim, owner, holder):
            one.kill()
            one.wait()


@pytest.mark.parametrize("how", ["its time", "its owner is stopped"])
def test_a_stressor_exits_by_itself(how, monkeypatch):
    owner = subprocess.Popen(["/bin/sleep", "60"])
    code = "import monkeyproof.faults.support.stressors.parent_monitor as t\n"
    code += "t.SILENT_S = 0.3; t.CHECK_EVERY_S = 0.05\n"
    code += "from monkeyproof.faults.support.stressors.cpu import main; main()"
    for_s = "0.3" if how == "its time" else "60"
    burner = subprocess.Popen(
        [
            *(sys.executable, "-c", code, "--id", "x", "--for-s", for_s),
            *("--owner", reference_text(owner.pid), "--busy-share", "0.2"),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert burner.stdout.readline()
        if how != "its time":
            assert burner.poll() is None
            owner.send_signal(signal.SIGSTOP)
        assert burner.wait(10) == 0
    finally:
        for one in (owner, burner):
            one.kill()
            one.wait()


def test_processors_are_kept_busy_and_let_go(world, fleet):
    found = resources.steal_cpu(workers=2, busy_share=0.5, nice=5, cores="0")
    assert len(found["data"]["pids"]) == 2
    assert found["data"]["cores_used"] > 0
    assert "2 busy processes had" in found["evidence"]
    assert all(os.sched_getaffinity(pid) == {0} for pid in found["data"]["pids"])
    assert not [why for why in (look() for look in current().presence_checks.values()) if why]
    assert revert() == ["the busy processes: ended"]
    assert not stressor_pids()
    stressor_id = intent()["undo"]["arguments"]["stressor_id"]
    assert stressor.end(world, stressor_id, "the busy processes") == "the busy processes: had ended already"


def test_a_stressor_that_another_program_ended_is_missed(world, fleet):
    found = resources.steal_cpu(workers=1, busy_share=0.2)
    os.kill(found["data"]["pids"][0], signal.SIGKILL)
    (look,) = current().presence_checks.values()
    assert wait_for(lambda: look().startswith("1 of 1 processes of the fault have ended: "), within_s=5)


def test_a_target_elsewhere_is_refused(world, fleet):
    del world.parts[port.Processes]
    for call in (resources.steal_cpu, resources.fill_gpu, resources.exhaust_memory, resources.skew_clock):
        with pytest.raises(Refusal, match="is not known to run on it"):
            call()
    fleet.roots = lambda: (fleet.pid("replica-2"),)  # The other is a stranger's.
    world.parts[port.Processes] = fleet
    with pytest.raises(Refusal, match="replica-1 is no process of this machine that descends from the target's"):
        resources.exhaust_handles("replica-1")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: resources.exhaust_memory("replica-1", spare_mib=-1), "spare_mib: -1 is not"),
        (lambda: resources.exhaust_memory("replica-1", spare_mib=900_000), "spare_mib: 900000 is not"),
        (lambda: resources.exhaust_handles("replica-1", spare=1.5), "spare: 1.5 is not a whole number"),
        (
            lambda: resources.exhaust_handles("replica-1", spare=5000),
            "spare: 5000 is not a whole number from 0 to",
        ),
        (lambda: resources.fill_disk("replica-1", most_kib=float("inf")), "most_kib: inf is not"),
        (lambda: resources.steal_cpu(workers=0), "workers: 0 is not a whole number from 1 to 64"),
        (lambda: resources.steal_cpu(busy_share=1.1), "busy_share: 1.1 is not"),
        (lambda: resources.steal_cpu(cores="one"), "cores: 'one' is no list"),
        (lambda: resources.steal_cpu(cores="4095"), "there is no core 4095"),
        (lambda: resources.fill_gpu(share=0), "share: 0 is not"),
        (lambda: resources.skew_clock("replica-1", offset_s=1e12), "offset_s: .* is not"),
    ],
)
def test_bad_parameters(world, fleet, call, words):
    with pytest.raises(UsageError, match=words):
        call()
    assert not current().undo.open_faults()


def test_a_machine_without_cuda_is_reported(world, fleet, monkeypatch):
    from monkeyproof.faults.resources import gpu

    def absent(_name):
        raise gpu.NoCuda("libcuda.so.1 is not here: no CUDA driver is installed")

    monkeypatch.setattr(gpu, "library", absent)
    with pytest.raises(Refusal, match=r"libcuda\.so\.1 is not here: no CUDA driver is installed; run where"):
        resources.fill_gpu()


def test_a_clock_is_set_for_one_process_and_right_again(world, fleet):
    try:
        find_faketime()
    except Refusal as error:
        pytest.skip(str(error))
    found = resources.skew_clock("replica-1", offset_s=-7200)
    assert abs(found["data"]["off_s"] + 7200) < 3
    assert revert() == ["replica-1: restarted with the right clock"]
    from monkeyproof.faults.resources.clock import clock_off_s

    off_s = clock_off_s(next(one for one in fleet.list() if one.name == "replica-1").metrics_url)
    assert off_s is not None
    assert abs(off_s) < 3
    assert resources.start_with_right_clock(world, "replica-1") == "replica-1: its clock was right already"


def test_without_libfaketime_it_says_how_to_get_it(world, fleet, monkeypatch):
    from monkeyproof.faults.resources import clock

    monkeypatch.setattr(clock, "_PLACES", ("nowhere/*",))
    with pytest.raises(Refusal, match="apt install libfaketime"):
        resources.skew_clock("replica-1")


def test_a_port_in_the_way_is_no_replica() -> None:
    """What is asked for the proof of used-up handles: no listener means that it failed."""
    from monkeyproof.faults.resources.limits import _fresh_connection

    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
    assert (
        _fresh_connection(f"http://127.0.0.1:{number}/")
        == "; a connection of our own failed (ConnectionRefusedError)"
    )
