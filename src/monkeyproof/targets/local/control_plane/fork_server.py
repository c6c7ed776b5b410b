"""The fork server: keeps the heavy libraries loaded, and forks scoring replicas in a few milliseconds.

    python -m monkeyproof.targets.local.control_plane.fork_server --config DIR/replicas.json --control SOCK

Speaks the protocol of monkeyproof.runtime.rpc, but from one plain thread with a selector: forking from a process
that has threads or a running event loop hands the child locks that no thread will release, and a loop whose
epoll it shares with its parent. The child starts its own event loop, after closing everything that was ours.

Methods: ``ping``; ``start {name, port, environment}`` forks a replica, which takes seconds where it needs an
environment of its own, as its libraries are then loaded again; ``trial_load {model, sha256, rows}`` loads a model
in a child that may die of it, which is a result and not an error.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import select
import selectors
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from monkeyproof.errors import UsageError
from monkeyproof.runtime import procfs
from monkeyproof.runtime.rpc import WRONG_TOKEN, Token
from monkeyproof.targets.local.control_plane.forking import fork, kill_group
from monkeyproof.targets.local.workload.isolated_load import (
    MAX_TRIAL_ANSWER_BYTES,
    TRIAL_LIMIT_S,
    TrialQuestion,
    answer_trial,
    how_it_ended,
    trial_result,
)
from monkeyproof.targets.local.workload.settings import read_settings
from monkeyproof.types import Json

MAX_LINE_BYTES = 16 * 1024 * 1024
MAX_TRIALS = 4
LEAD_LIMIT_S = 2.0
PRELOADED = (
    "monkeyproof.targets.local.workload.scoring",
    *(f"sklearn.{name}" for name in ("ensemble", "linear_model", "pipeline", "preprocessing", "svm", "tree")),
    *("uvicorn.lifespan.on", "uvicorn.loops.uvloop", "uvicorn.protocols.http.httptools_impl"),
)
# Read by the libraries as they are loaded. Threads do not survive a fork, and on busy cores they make numpy slow;
# pyarrow, which scikit-learn imports through pandas, starts one to give memory back.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}


@dataclass(slots=True, eq=False)
class _ForkClient:
    socket: socket.socket
    buffered: bytearray = field(default_factory=bytearray)
    opened: bool = False
    """Whether it has sent the token."""


@dataclass(slots=True, eq=False)
class _LoadInProgress:
    """A model that is being loaded in a child."""

    pid: int
    answer: int
    """A file in memory, which the child writes."""
    deadline_s: float
    connection: _ForkClient
    request_id: Json
    timed_out: bool = False


class ForkServer:
    """One thread, one selector; see the module."""

    def __init__(
        self, control: Path, run_replica: Callable[[str, socket.socket, Mapping[str, str]], None]
    ) -> None:
        self._run_replica = run_replica
        self._selector = selectors.DefaultSelector()
        self._connections: set[_ForkClient] = set()
        self._trials: dict[int, _LoadInProgress] = {}
        self._replicas: dict[int, int] = {}
        """pidfd to pid."""
        self._token = Token(control)
        old_umask = os.umask(0o177)
        try:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(str(control))
        finally:
            os.umask(old_umask)
        self._listener.listen(16)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def serve(self) -> NoReturn:
        """Answer requests until a signal ends the process."""
        while True:
            running = [trial.deadline_s for trial in self._trials.values() if not trial.timed_out]
            wait_s = max(0.0, min(running) - time.monotonic()) if running else None
            for key, _ in self._selector.select(wait_s):
                key.data()
            self._end_overdue_trials()

    # Requests

    def _accept(self) -> None:
        connection = _ForkClient(self._listener.accept()[0])
        connection.socket.settimeout(1.0)
        self._connections.add(connection)
        self._selector.register(connection.socket, selectors.EVENT_READ, lambda: self._read(connection))

    def _read(self, connection: _ForkClient) -> None:
        try:
            chunk = connection.socket.recv(65536)
        except OSError:
            chunk = b""
        connection.buffered += chunk
        if not chunk or len(connection.buffered) > MAX_LINE_BYTES:
            self._forget(connection)
            return
        if b"\n" not in chunk:
            return
        *lines, rest = connection.buffered.split(b"\n")
        connection.buffered = bytearray(rest)
        for line in lines:
            if connection.opened:
                self._answer(connection, bytes(line))
            elif self._token.opens(bytes(line) + b"\n"):
                connection.opened = True
            else:
                self._send(connection, WRONG_TOKEN)
                self._forget(connection)
                return

    def _answer(self, connection: _ForkClient, line: bytes) -> None:
        request_id: Json = None
        try:
            message = json.loads(line)
            request_id, method, params = message["id"], message["method"], message.get("params", {})
            if method == "ping":
                self._send(connection, {"id": request_id, "result": {"pid": os.getpid()}})
            elif method == "start":
                environment = {str(key): str(value) for key, value in params.get("environment", {}).items()}
                pid = self._start(str(params["name"]), int(params["port"]), environment)
                self._send(connection, {"id": request_id, "result": {"pid": pid}})
            elif method == "trial_load":
                self._begin_trial(connection, request_id, params)
            else:
                raise ValueError(f"{method}: no such method; there are ping, start and trial_load")
        except (ValueError, KeyError, TypeError, OSError) as error:
            what = f"missing parameter {error}" if isinstance(error, KeyError) else str(error)
            self._send(connection, {"id": request_id, "error": what})

    def _send(self, connection: _ForkClient, message: dict[str, Json]) -> None:
        try:
            connection.socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self._forget(connection)

    def _forget(self, connection: _ForkClient) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            self._selector.unregister(connection.socket)
            connection.socket.close()

    # Replicas

    def _start(self, name: str, port: int, environment: Mapping[str, str]) -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except (OSError, OverflowError) as error:
                raise ValueError(f"{name}: cannot listen on 127.0.0.1:{port} ({error})") from None
            # The replica listens when it can answer; a connection that queued up until then would only wait.
            ready_reader, ready_writer = os.pipe()

            def replica() -> None:
                os.close(ready_writer)
                self._run_replica(name, listener, environment)

            pid = fork(replica, keep={listener.fileno(), ready_writer}, close_inherited=self._close_inherited)
            os.close(ready_writer)
        # The caller may signal the child's group at once: answer only when it leads one.
        select.select([ready_reader], [], [], LEAD_LIMIT_S)
        os.close(ready_reader)
        self._watch(pid)
        return pid

    def _watch(self, pid: int) -> None:
        pidfd = os.pidfd_open(pid)
        self._replicas[pidfd] = pid
        self._selector.register(pidfd, selectors.EVENT_READ, lambda: self._reap(pidfd))

    def _reap(self, pidfd: int) -> None:
        self._selector.unregister(pidfd)
        pid = self._replicas.pop(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        print(f"replica with pid {pid} {how_it_ended(status)}", file=sys.stderr, flush=True)

    # Models

    def _begin_trial(self, connection: _ForkClient, request_id: Json, params: dict[str, Json]) -> None:
        if len(self._trials) >= MAX_TRIALS:
            raise ValueError(f"{MAX_TRIALS} models are being loaded already; try again")
        question = TrialQuestion(Path(params["model"]), str(params["sha256"]), params["rows"])
        # A file in memory, not a pipe: the server need not read while the child writes.
        answer = os.memfd_create("trial")
        pid = fork(lambda: answer_trial(question, answer), keep={answer}, close_inherited=self._close_inherited)
        pidfd = os.pidfd_open(pid)
        trial = _LoadInProgress(pid, answer, time.monotonic() + TRIAL_LIMIT_S, connection, request_id)
        self._trials[pidfd] = trial
        self._selector.register(pidfd, selectors.EVENT_READ, lambda: self._end_trial(pidfd))

    def _end_trial(self, pidfd: int) -> None:
        trial = self._trials.pop(pidfd)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        kill_group(trial.pid)  # Whatever it may have started. Its number is its own until it is reaped.
        _, status = os.waitpid(trial.pid, 0)
        result = trial_result(os.pread(trial.answer, MAX_TRIAL_ANSWER_BYTES, 0), status, trial.timed_out)
        os.close(trial.answer)
        self._send(trial.connection, {"id": trial.request_id, "result": result})

    def _end_overdue_trials(self) -> None:
        for trial in self._trials.values():
            if time.monotonic() >= trial.deadline_s and not trial.timed_out:
                trial.timed_out = True
                kill_group(trial.pid)

    def _close_inherited(self) -> None:
        """In a child: close the sockets of the server."""
        self._selector.close()
        self._listener.close()
        for connection in self._connections:
            connection.socket.close()


def preload() -> None:
    """Import what replicas and pickled models need, once, without starting a thread."""
    for name in PRELOADED:
        importlib.import_module(name)
    if (threads := procfs.thread_count(os.getpid())) > 1:
        raise UsageError(f"the fork server has {threads} threads before it forked: a library started some")
    # What is loaded will never be garbage; scanning it would copy the pages that replicas share.
    gc.collect()
    gc.freeze()


def _run_in_environment(
    config: Path, name: str, listener: socket.socket, environment: Mapping[str, str]
) -> NoReturn:
    """In a child: become a replica in another environment, with the same pid and the same end."""
    os.set_inheritable(listener.fileno(), True)
    command = [
        sys.executable,
        "-m",
        "monkeyproof.targets.local.control_plane.fork_server",
        "--config",
        str(config),
    ]
    command += ["--serve", name, "--listener", str(listener.fileno())]
    os.execve(sys.executable, command, {**os.environ, **environment})


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fork scoring replicas on request.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--control", type=Path, help="The socket on which requests come; not with --serve.")
    parser.add_argument("--serve", metavar="NAME", help="Be that replica, and do nothing else.")
    parser.add_argument("--listener", type=int, metavar="FD", help="The socket on which it answers.")
    arguments = parser.parse_args(argv)
    os.environ.update(ONE_THREAD)
    config: Path = arguments.config
    try:
        if not arguments.serve:
            preload()
        from monkeyproof.targets.local.workload import scoring

        settings = read_settings(scoring.ReplicaSettings, config)

        def run_replica(name: str, listener: socket.socket, environment: Mapping[str, str]) -> None:
            if environment:
                _run_in_environment(config, name, listener, environment)
            scoring.run(name, listener, settings)

        if arguments.serve:
            scoring.run(arguments.serve, socket.socket(fileno=arguments.listener), settings)
            return
        server = ForkServer(arguments.control, run_replica)
    except (UsageError, OSError) as error:
        sys.exit(str(error))
    server.serve()


if __name__ == "__main__":
    main()
