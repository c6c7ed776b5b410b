"""Brings the embedded target up and down, and reports its status, for the command line."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from monkeyproof import paths
from monkeyproof.clock import wait_for
from monkeyproof.config.target_file import TargetFile, read_target_file
from monkeyproof.errors import TargetError, UsageError
from monkeyproof.runtime.process_group import last_log_line
from monkeyproof.runtime.process_ref import is_same
from monkeyproof.runtime.procfs import is_stopped, start_ticks
from monkeyproof.runtime.reaper import end_groups, group_exists
from monkeyproof.runtime.rpc import Client
from monkeyproof.targets.local.control_plane.front_door import find_caddy
from monkeyproof.targets.local.control_plane.layout import STATE_FILE, is_free
from monkeyproof.targets.local.control_plane.services import find_valkey
from monkeyproof.targets.local.control_plane.stack import LOGS, OWNER_GRACE_S, clear_folder
from monkeyproof.targets.port import Replica
from monkeyproof.types import Json

TARGET_FILE = "target.yaml"
UP_WITHIN_S = 120.0
DOWN_WITHIN_S = 15.0
CHECK_EVERY_S = 0.05
REPORT_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One process of the target."""

    name: str
    pid: int | None
    state: str
    """starting, ready, paused, down or backing_off."""
    port: int | None
    starts: int


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """The embedded target at one moment."""

    up: bool
    """Whether all parts are up, and the supervisor answers."""
    since: str | None = None
    """UTC."""
    phase: str = "down"
    """down, up, or what it is doing while it starts."""
    parts: tuple[PartStatus, ...] = ()
    replicas: tuple[Replica, ...] = ()


def up(
    port: int = 0,
    progress: Callable[[str], None] | None = None,
    *,
    owner_pid: int = 0,
    owner_grace_s: float = OWNER_GRACE_S,
) -> TargetFile:
    """Start the embedded target and leave it running; if it is up already, that is fine.

    Args:
        port: of the front door; 0 for any free port.
        progress: is called now and then with what the start waits for, in a few words.
        owner_pid: a target that is started here ends soon after this process; 0: it stays until ``down``.
        owner_grace_s: how long after it.

    Raises:
        UsageError: it cannot be started; the message says why, and no part is left running.
    """
    say = progress or _ignore
    folder = paths.target_dir()
    with _locked(folder, say):
        running = _supervisor(folder)
        if running is not None and is_stopped(int(running["pid"])):
            raise UsageError(
                f"the target's supervisor (pid {running['pid']}) is stopped; kill -CONT {running['pid']}, or "
                "'monkeyproof target down' and up"
            )
        if running is None or not _await_running(folder, running, port, say):
            _clean_up(folder)
            find_valkey()
            find_caddy()
            if port and not is_free(port):
                raise UsageError(f"127.0.0.1:{port} is in use by another program; choose another --port, or none")
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.rmtree(folder / LOGS, ignore_errors=True)
            clear_folder(folder)
            _start(folder, port, owner_pid, owner_grace_s, say)
        return read_target_file(folder / TARGET_FILE)


def status() -> TargetStatus:
    """Ask the supervisor for the status; changes nothing."""
    state = _supervisor(paths.target_dir())
    if state is None:
        return TargetStatus(up=False)
    try:
        found = _ask(state, "status")
    except TargetError:
        return TargetStatus(up=False, since=state["since"], phase="starting")
    return TargetStatus(
        up=found["phase"] == "up",
        since=found["since"],
        phase=found["phase"],
        parts=tuple(PartStatus(**part) for part in found["parts"]),
        replicas=tuple(Replica(**replica) for replica in found["replicas"]),
    )


def is_running() -> bool:
    """Whether its supervisor runs, even if it is stopped or hangs."""
    return _supervisor(paths.target_dir()) is not None


def down() -> bool:
    """End all parts, those of a killed supervisor as well; returns whether there was anything to end."""
    folder = paths.target_dir()
    state = _supervisor(folder)
    if state is None:
        return _clean_up(folder)
    _end_supervisor(int(state["pid"]))
    _clean_up(folder)
    return True


def _start(folder: Path, port: int, owner_pid: int, owner_grace_s: float, say: Callable[[str], None]) -> None:
    argv = [
        *(sys.executable, "-m", "monkeyproof.targets.local.control_plane.stack", "--dir", str(folder)),
        *("--port", str(port)),
    ]
    if owner_pid:
        argv += ["--owner", str(owner_pid), "--owner-grace-s", str(owner_grace_s)]
    with paths.open_private(folder / LOGS / "stack.log", append=True) as log:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=folder
        )
    try:
        if not _await_up(folder, lambda: child.poll() is not None, say):
            log_file = folder / LOGS / "stack.log"
            # Without the logger's own date, time and level.
            why = last_log_line(log_file).split(" ERROR ", 1)[-1]
            raise UsageError(f"the target did not start: {why} (all of it: {log_file})")
    except BaseException:
        _end_supervisor(child.pid)
        child.wait()
        _clean_up(folder)
        raise
    # It runs on; asking for its exit status would wait for a process that is not meant to end.
    child.returncode = 0


def _await_running(folder: Path, running: Mapping[str, Json], port: int, say: Callable[[str], None]) -> bool:
    """Wait for a target that runs already or is starting; False if it ends instead."""
    if port and running["port"] != port:
        raise UsageError(f"the target is up on port {running['port']} already; 'monkeyproof target down' ends it")
    return _await_up(folder, lambda: not is_same(dict(running)), say)


def _await_up(folder: Path, ended: Callable[[], bool], say: Callable[[str], None]) -> bool:
    """Wait until a target is up; False if its supervisor ends before."""
    deadline_s = time.monotonic() + UP_WITHIN_S
    next_report_s = time.monotonic() + REPORT_EVERY_S
    # The file alone could be left from a supervisor that was killed a moment ago.
    while not ((folder / TARGET_FILE).exists() and status().up):
        if ended():
            return False
        if time.monotonic() >= deadline_s:
            log = folder / LOGS / "stack.log"
            raise UsageError(
                f"the target did not start within {UP_WITHIN_S:g} s: {_waiting_for(folder)} (its log: {log})"
            )
        if time.monotonic() >= next_report_s:
            say(_waiting_for(folder))
            next_report_s = time.monotonic() + REPORT_EVERY_S
        time.sleep(CHECK_EVERY_S)
    return True


def _waiting_for(folder: Path) -> str:
    state = _supervisor(folder)
    try:
        found = _ask(state, "status") if state is not None else None
    except TargetError:
        found = None
    if found is None:
        return "starting the supervisor"
    waiting = ", ".join(found["waiting_for"])
    return f"{found['phase']}; waiting for {waiting}" if waiting else str(found["phase"])


def _supervisor(folder: Path) -> Mapping[str, Json] | None:
    """The supervisor's state file, if it is running."""
    state = _state(folder)
    return state if state is not None and is_same(state) else None


def _state(folder: Path) -> dict[str, Json] | None:
    try:
        found = json.loads((folder / STATE_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"pid", "started", "sockets", "groups"} <= found.keys() else None


def _ask(state: Mapping[str, Json], method: str) -> Json:
    with Client(state["control"], timeout_s=3.0) as client:
        return client.call(method)


def _end_supervisor(pid: int) -> None:
    """Send SIGTERM, and SIGKILL if it does not end: then its reaper ends what it started."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)
                signal.pidfd_send_signal(pidfd, signal.SIGCONT)
            if select.select([pidfd], [], [], DOWN_WITHIN_S)[0]:
                return
    finally:
        os.close(pidfd)


def _clean_up(folder: Path) -> bool:
    """Remove what an ended supervisor left: processes (its reaper ends them, too), sockets, target file."""
    state = _state(folder)
    found = state is not None or (folder / TARGET_FILE).exists()
    if state is not None:
        groups = [known for known in state["groups"] if is_same(known) or _only_members_left(int(known["pid"]))]
        if not wait_for(lambda: not any(group_exists(int(one["pid"])) for one in groups), within_s=2.0):
            end_groups([int(one["pid"]) for one in groups])
        sockets = Path(state["sockets"])
        if sockets.name.startswith(paths.SOCKET_DIR_PREFIX):
            shutil.rmtree(sockets, ignore_errors=True)
    for name in (TARGET_FILE, STATE_FILE):
        (folder / name).unlink(missing_ok=True)
    return found


def _only_members_left(pgid: int) -> bool:
    """Whether the leader has ended and its group has not: the kernel does not reuse that number meanwhile."""
    return start_ticks(pgid) is None and group_exists(pgid)


@contextlib.contextmanager
def _locked(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Let one ``up`` run at a time; the second waits for the first and then finds the target up."""
    with paths.open_private(folder.with_name(f"{folder.name}.up.lock")) as file:

        def mine() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        if not mine():
            say("another process is starting the target; waiting for it")
            if not wait_for(mine, within_s=UP_WITHIN_S + DOWN_WITHIN_S):
                raise UsageError(
                    "another process has been starting the target for too long; end it, then try again"
                )
        yield


def _ignore(_words: str) -> None:
    pass
