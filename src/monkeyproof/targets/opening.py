"""Opens a target by its file, and checks that it answers before anything is injected."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from monkeyproof import paths
from monkeyproof.config.redaction import redact_text
from monkeyproof.config.target_file import TargetFile, read_target_file
from monkeyproof.config.user_files import GOLDEN_BYTES_MAX, refuse_unless_file
from monkeyproof.errors import TargetError, UsageError
from monkeyproof.runtime.rpc import listens
from monkeyproof.targets.port import Registry, Target
from monkeyproof.types import Json

MAX_ANSWER_BYTES = 1024 * 1024
QUOTED_CHARACTERS_MAX = 200
TARGET_DOWN = "the embedded target is down, and the fault ended with it"


def open_target(path: Path | None) -> Target:
    """Open a target for control; the caller closes it.

    Args:
        path: its file; None for the embedded target that is running.

    Raises:
        UsageError: there is no such file, it has an error, or the target that it describes does not run.
    """
    if path is None:
        path = paths.target_dir() / "target.yaml"
        if not path.exists():
            raise UsageError("the embedded target is not up; 'monkeyproof target up' starts it")
    file = read_target_file(path)
    # Imported here, because each kind needs libraries that the other does not.
    if file.stack is not None:
        from monkeyproof.targets.local.adapter.target import LocalTarget

        return LocalTarget(file)
    from monkeyproof.targets.http import HttpTarget

    return HttpTarget(file)


def is_down(file: TargetFile) -> bool:
    """Whether it is an embedded target that has ended, and every fault with it."""
    return file.stack is not None and not listens(file.stack.control)


def check_answers(target: Target) -> None:
    """Ask the first golden question, and the registry if there is one, once each. Answers are not judged here.

    An answer is bounded in bytes and in time as a whole: a service that trickles would never end otherwise.

    Raises:
        UsageError: no answer with a success status came; says from where, what came instead, what to do.
    """
    file = target.file
    body = first_golden_body(file)
    what_to_do = (
        "is the target up? 'monkeyproof target status' shows its parts"
        if file.stack is not None
        else f"start the service, or correct predict in {file.path}"
    )
    where = file.predict.url.partition("?")[0]  # What follows may be a key.
    registry = target.find(Registry)
    if registry is not None and file.registry is not None:
        try:
            registry.champion()
        except TargetError as error:
            raise UsageError(f"{file.registry.uri}: the registry does not work: {error}; {what_to_do}") from None
    try:
        status, answer = _ask_once(file, body)
    except (OSError, ValueError, http.client.HTTPException) as error:
        words = " ".join(redact_text(str(error)).split())[:QUOTED_CHARACTERS_MAX] or type(error).__name__
        raise UsageError(f"{where}: no answer ({words}); {what_to_do}") from None
    if not 200 <= status < 300:
        quoted = " ".join(redact_text(answer.decode(errors="replace")).split())[:QUOTED_CHARACTERS_MAX]
        raise UsageError(f"{where}: answers with HTTP {status}{': ' if quoted else ''}{quoted}; {what_to_do}")


def first_golden_body(file: TargetFile) -> Json:
    """The body of the first question in the target's golden file.

    Raises:
        UsageError: the file is missing or empty, or its first line is not a question; with file and line.
    """
    golden = file.predict.golden
    refuse_unless_file(golden, "the golden file ", GOLDEN_BYTES_MAX)
    try:
        with golden.open(encoding="utf-8") as lines:
            line = next(lines, "")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"{golden}: the golden file cannot be read: {reason}") from None
    try:
        return json.loads(line)["body"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(
            f'{golden}:1: not a golden question; each line is {{"body": ..., "expect": ..., "tolerance": ...}}'
        ) from None


def _ask_once(file: TargetFile, body: Json) -> tuple[int, bytes]:
    url = urlsplit(file.predict.url)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    headers = {"Content-Type": "application/json", "Connection": "close", **file.predict.headers}
    within_s = max(1.0, file.prober.timeout_ms / 1000)
    connection = http.client.HTTPConnection(url.hostname or "", url.port or 80, timeout=within_s)
    cut = threading.Event()
    try:
        connection.connect()
        with _cut_after(connection.sock, within_s, cut):
            return _exchange(connection, file, path, body, headers)
    except (OSError, http.client.HTTPException):
        if cut.is_set():
            raise TimeoutError(f"it did not end within {within_s:g} s") from None
        raise
    finally:
        connection.close()


def _exchange(
    connection: http.client.HTTPConnection, file: TargetFile, path: str, body: Json, headers: Mapping[str, str]
) -> tuple[int, bytes]:
    content = None if file.predict.method in ("GET", "HEAD") else json.dumps(body).encode()
    connection.request(file.predict.method, path, body=content, headers=dict(headers))
    response = connection.getresponse()
    if response.status < 200:
        raise http.client.HTTPException(f"only an interim answer came, status {response.status}")
    return response.status, response.read(MAX_ANSWER_BYTES)


@contextlib.contextmanager
def _cut_after(connected: socket.socket, within_s: float, over: threading.Event) -> Iterator[None]:
    """Shut a socket down after ``within_s``: its own time limit begins again with every byte."""

    def cut() -> None:
        over.set()
        with contextlib.suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(within_s, cut)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
