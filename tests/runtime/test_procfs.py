"""The one reader of /proc: processes that run, are stopped, are zombies, have strange names."""

from __future__ import annotations

import ast
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import monkeyproof
from monkeyproof.clock import wait_for
from monkeyproof.runtime import procfs, trial_mark
from monkeyproof.runtime.process_ref import ProcessReference, identity, is_same, reference_text

PACKAGE = Path(monkeyproof.__file__).parent


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as started:
        yield started
        started.kill()


def test_a_process_that_runs_is_stopped_and_becomes_a_zombie(child: subprocess.Popen[bytes]) -> None:
    running = procfs.process(child.pid)
    assert running is not None
    assert (running.parent, running.group, running.is_alive) == (os.getpid(), child.pid, True)
    assert procfs.living()[child.pid].started_ticks == procfs.start_ticks(child.pid) == running.started_ticks
    assert child.pid in procfs.children()
    assert procfs.living_in_group(child.pid) == {child.pid}
    known, reference = identity(child.pid), ProcessReference(reference_text(child.pid))

    child.send_signal(signal.SIGSTOP)
    assert wait_for(lambda: procfs.is_stopped(child.pid), within_s=5)
    assert procfs.living()[child.pid].is_stopped
    assert is_same(known)
    assert not reference.has_ended()

    child.kill()
    assert wait_for(lambda: procfs.state(child.pid) == "Z", within_s=5)
    zombie = procfs.process(child.pid)
    assert zombie is not None
    assert zombie.started_ticks == running.started_ticks
    assert not zombie.is_alive
    assert child.pid not in procfs.living()
    assert not procfs.is_alive(child.pid)
    assert procfs.start_ticks(child.pid) is None
    assert procfs.command_line(child.pid) == [b""]
    assert not is_same(known)
    assert reference.has_ended()
    assert reference_text(child.pid) == f"{child.pid}:{running.started_ticks}"

    child.wait()
    assert procfs.process(child.pid) is None
    assert procfs.state(child.pid) == ""
    assert procfs.command_line(child.pid) == procfs.environment(child.pid) == []
    assert reference_text(child.pid) == f"{child.pid}:-1"
    for measure in (procfs.open_descriptors, procfs.thread_count, procfs.address_space_bytes):
        with pytest.raises(OSError, match=str(child.pid)):
            measure(child.pid)
    assert procfs.cpu_times_ns(child.pid) == (0, 0)


def test_a_program_name_with_parentheses_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    program = os.fsencode(tmp_path) + b"/a) Z 1 (\xff"
    Path(os.fsdecode(program)).symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as started:
        found = procfs.process(started.pid)
        started.kill()
    assert found is not None
    assert found.parent == os.getpid()


def test_measures_of_this_process() -> None:
    pid = os.getpid()
    with Path(__file__).open() as file:
        assert file.fileno() in procfs.open_descriptors(pid)
    assert file.closed
    assert procfs.thread_count(pid) >= 1
    assert procfs.address_space_bytes(pid) > 2**20
    sum(range(3_000_000))
    on_cpu_ns, waited_ns = procfs.cpu_times_ns(pid)
    assert on_cpu_ns > 0
    assert waited_ns >= 0
    assert procfs.expects_signal(pid, signal.SIGXFSZ)  # Python ignores it.
    assert not procfs.expects_signal(pid, signal.SIGXCPU)
    assert 1024 <= procfs.lowest_ephemeral_port() < 65536


def test_sockets_of_this_process() -> None:
    name = f"monkeyproof-test-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as held,
    ):
        held.bind(f"\0{name}")
        port = server.getsockname()[1]
        assert procfs.listeners({os.getpid(), os.getppid()}, {port}) == {os.getpid()}
        assert procfs.listeners({os.getpid()}, {port + 1}) == set()
        assert name in procfs.abstract_socket_names()
    assert name not in procfs.abstract_socket_names()


def test_descendants_that_left_their_parent_are_found_by_the_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(trial_mark.TRIAL_MARK, str(tmp_path))
    code = "import subprocess as s; print(s.Popen(['sleep', '60'], stdout=s.DEVNULL, start_new_session=True).pid)"
    orphan = int(subprocess.check_output([sys.executable, "-c", code]))
    try:
        assert orphan not in procfs.with_descendants({os.getpid()}, procfs.living())
        assert trial_mark.marked_processes(tmp_path) == {orphan}
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_no_other_module_of_the_package_reads_proc() -> None:
    """A second reader would have to get zombies, recycled pids and strange names right a second time."""
    modules = [
        Path(folder, name)
        for folder, _, names in os.walk(PACKAGE, followlinks=True)
        for name in names
        if name.endswith(".py")
    ]
    assert len(modules) > 250  # The rooms, which a checkout links to, are among them.
    readers = {
        str(path.relative_to(PACKAGE))
        for path in modules
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("/proc")
    }
    assert readers == {"runtime/procfs.py"}
