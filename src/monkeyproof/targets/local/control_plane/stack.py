"""The embedded target's one supervising process.

    python -m monkeyproof.targets.local.control_plane.stack --dir DIR [--port N] [--owner PID [--owner-grace-s S]]

starts all parts, writes DIR/target.yaml when a question through the front door is answered, and keeps them running
until SIGTERM. However this process ends, all processes that it started end with it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from monkeyproof import paths
from monkeyproof.errors import MonkeyproofError, UsageError
from monkeyproof.record.history import write_json
from monkeyproof.runtime import rpc
from monkeyproof.runtime.process_group import ProcessGroup
from monkeyproof.runtime.process_ref import identity
from monkeyproof.runtime.procfs import start_ticks
from monkeyproof.targets.local.control_plane.control_port import ControlSession
from monkeyproof.targets.local.control_plane.layout import CLIENT_LINK, STATE_FILE, StackLayout, choose_layout
from monkeyproof.targets.local.control_plane.supervisor import Supervisor

log = logging.getLogger(__name__)
LOGS = "logs"
OWNER_GRACE_S = 10.0
"""Meanwhile the worker of a killed campaign reverts its faults in order."""


async def run(layout: StackLayout, owner_pid: int = 0, owner_grace_s: float = OWNER_GRACE_S) -> None:
    """Bring the target up, and keep it up until a signal comes, or ``owner_grace_s`` after the end of the process
    ``owner_pid`` (0: none).

    Raises:
        MonkeyproofError: it could not be brought up.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    if owner_pid:
        _end_after(owner_pid, owner_grace_s, loop, stop)
    since_utc = datetime.now(UTC).isoformat(timespec="seconds")

    with ProcessGroup() as group:
        state = StateFile(layout, since_utc)
        supervisor = Supervisor(layout, group, lambda: state.write(supervisor))
        state.write(supervisor)
        server = await rpc.serve(layout.socket("control"), lambda: ControlSession(supervisor, since_utc))
        bringing_up = asyncio.create_task(supervisor.bring_up())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((bringing_up, stopping), return_when=asyncio.FIRST_COMPLETED)
            if bringing_up.done():
                bringing_up.result()
                log.info("up")
                await stopping
        finally:
            layout.target_file.unlink(missing_ok=True)
            server.close()
            for task in (bringing_up, stopping):
                task.cancel()
            await asyncio.gather(bringing_up, stopping, return_exceptions=True)
            await supervisor.close()


def _end_after(owner_pid: int, grace_s: float, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    try:
        watched = os.pidfd_open(owner_pid)
    except ProcessLookupError:
        stop.set()
        return

    def ended() -> None:
        loop.remove_reader(watched)
        loop.call_later(grace_s, stop.set)

    loop.add_reader(watched, ended)


class StateFile:
    """DIR/stack.json: enough to find and end all parts even if both supervisor and reaper were killed."""

    def __init__(self, layout: StackLayout, since_utc: str) -> None:
        self._path = layout.folder / STATE_FILE
        self._fixed = {
            **identity(os.getpid()),
            "sockets": str(layout.sockets),
            "control": str(layout.socket("control")),
            "port": layout.listen_port(CLIENT_LINK),
            "since": since_utc,
        }

    def write(self, supervisor: Supervisor) -> None:
        running = [part.pid for part in supervisor.parts.values() if part.pid is not None]
        groups = [identity(pid) for pid in running if start_ticks(pid) is not None]
        write_json(self._path, {**self._fixed, "groups": groups})


def clear_folder(folder: Path) -> None:
    """Delete all that an earlier target left in the folder, except its logs."""
    for path in folder.iterdir():
        if path.name == LOGS:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    (folder / LOGS).mkdir(exist_ok=True, mode=0o700)


@contextlib.contextmanager
def sole_supervisor(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the kernel releases when this process ends.

    Raises:
        UsageError: another supervisor has it.
    """
    with folder.with_name(f"{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{folder}: another supervisor runs there; 'monkeyproof target down' ends it"
            ) from None
        yield


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="monkeyproof.targets.local.control_plane.stack", description="The embedded target."
    )
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--owner", type=int, default=0, help="End when the process with this id ends.")
    parser.add_argument("--owner-grace-s", type=float, default=OWNER_GRACE_S, help="How long after that.")
    arguments = parser.parse_args()
    paths.keep_private()
    folder: Path = arguments.dir.resolve()
    (folder / LOGS).mkdir(parents=True, exist_ok=True, mode=0o700)
    logging.basicConfig(
        filename=folder / LOGS / "stack.log", level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        with sole_supervisor(folder):
            clear_folder(folder)
            sockets = paths.socket_dir()
            try:
                layout = choose_layout(folder, sockets, arguments.port)
                uvloop.run(run(layout, arguments.owner, arguments.owner_grace_s))
            finally:
                shutil.rmtree(sockets, ignore_errors=True)
                (folder / STATE_FILE).unlink(missing_ok=True)
    except MonkeyproofError as error:
        log.error("%s", error)
        return error.exit_code
    except OSError as error:
        log.error("%s: %s", error.filename or "the supervisor", error.strerror or error)
        return 1
    log.info("down")
    return 0


if __name__ == "__main__":
    sys.exit(main())
