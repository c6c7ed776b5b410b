"""Requests over a Unix socket: one JSON object a line, answered by one JSON object a line.

The socket file is only reachable by its owner (0600 in a 0700 folder). The fault proxy and the embedded
target's control port speak this. A server learns when a connection ends, so that what a client owns can
end with it (a lease that needs no clock).

A connection begins with a token, which its server made when it began to listen and wrote into a file beside the
socket (0600). The server answers any other first line with one error, and closes the connection.

    {"token": "..."}
    {"id": 1, "method": "replicas.kill", "params": {"name": "replica-1"}}
    {"id": 1, "result": {...}}        or        {"id": 1, "error": "replica-9: no such replica"}
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import json
import os
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from monkeyproof.errors import TargetError
from monkeyproof.types import Json

MAX_LINE_BYTES = 64 * 1024 * 1024
TOKEN_SUFFIX = ".token"
WRONG_TOKEN = {"id": None, "error": "refused: a connection begins with the token of the server that runs now"}


class Token:
    """The secret that opens a connection. It appears in no log and in no error."""

    def __init__(self, control: Path) -> None:
        """Make a new one, and write it beside the socket that is about to listen at ``control``."""
        self._file = control.with_name(control.name + TOKEN_SUFFIX)
        text = secrets.token_urlsafe(32)
        self._opening = _opening(text)
        self._file.unlink(missing_ok=True)  # That of a server that was killed.
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)

    def opens(self, line: bytes) -> bool:
        """Whether a connection's first line, with its end, is right."""
        return hmac.compare_digest(line, self._opening)

    def remove(self) -> None:
        self._file.unlink(missing_ok=True)


def _opening(token: str) -> bytes:
    return json.dumps({"token": token}).encode() + b"\n"


class Client:
    """A blocking connection; safe to use from several threads, one request at a time.

    Raises:
        TargetError: no server listens, its token cannot be read, no answer came within ``timeout_s``, or the
            answer is a failure.
    """

    def __init__(self, path: Path | str, *, timeout_s: float = 10.0) -> None:
        self._path = str(path)
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._timeout_s = timeout_s
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(self._path)
        except OSError as error:
            self._socket.close()
            raise TargetError(f"{self._path}: no server answers there ({error.strerror or error})") from None
        try:
            # After the connection: the server that listens now has written it before.
            token = Path(self._path + TOKEN_SUFFIX).read_text(encoding="ascii")
        except (OSError, ValueError):
            self._socket.close()
            raise TargetError(
                f"{self._path}: has no token beside it, so what listens there ends, or is of another version"
            ) from None
        # Sent together with the first request: after a refusal, a later one might find no server.
        self._unsent = _opening(token)
        self._file = self._socket.makefile("rwb")

    def call(self, method: str, *, timeout_s: float | None = None, **params: Json) -> Json:
        """Send one request and return its result. ``timeout_s`` replaces the connection's own for this call."""
        with self._lock:
            request_id = next(self._ids)
            line = json.dumps({"id": request_id, "method": method, "params": params}).encode() + b"\n"
            self._socket.settimeout(timeout_s or self._timeout_s)
            try:
                self._file.write(self._unsent + line)
                self._file.flush()
                self._unsent = b""
                answer = self._file.readline(MAX_LINE_BYTES)
            except OSError as error:
                # What comes later on this connection could answer the wrong question: give it up.
                self._socket.close()
                raise TargetError(f"{method}: no answer from {self._path} ({error})") from None
        if not answer.endswith(b"\n"):
            raise TargetError(f"{method}: {self._path} closed the connection")
        message = json.loads(answer)
        if message.get("id") is None and "error" in message:
            raise TargetError(f"{self._path}: {message['error']}")
        if message.get("id") != request_id:
            raise TargetError(f"{method}: {self._path} answered out of turn")
        if "error" in message:
            raise TargetError(str(message["error"]))
        return message.get("result")

    def close(self) -> None:
        # Shut down first: a file object made from the socket would keep it open.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._file.close()
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def listens(control: Path) -> bool:
    """Whether a process listens on the socket, even if it is stopped or hangs."""
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(1.0)
        try:
            one.connect(str(control))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            pass  # Too busy to take one more, say.
    return True


class Session(Protocol):
    """One client's connection, as the server sees it."""

    async def call(self, method: str, params: dict[str, Json]) -> Json:
        """Answer one request. A TargetError's text, or a ValueError's, goes back to the client."""

    async def closed(self) -> None:
        """Clean up: the client has closed its connection, or has ended."""


class Listening:
    """A server that listens until it is closed, which deletes its token as well."""

    def __init__(self, server: asyncio.Server, token: Token) -> None:
        self._server, self._token = server, token

    def close(self) -> None:
        self._server.close()
        self._token.remove()


async def serve(path: Path, session: Callable[[], Session]) -> Listening:
    """Listen on ``path``, one ``session()`` a connection; requests of one connection are answered in order."""
    token = Token(path)

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not await _opened(reader, writer, token):
            return
        one = session()
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await _answer(one.call, line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # The peer vanished, or sent a line beyond the limit: either way the connection ends.
        except asyncio.CancelledError:
            pass  # The server ends. Python 3.11 would print a traceback for every connected client.
        finally:
            await one.closed()
            writer.close()

    old_umask = os.umask(0o177)
    try:
        return Listening(await asyncio.start_unix_server(connection, str(path), limit=MAX_LINE_BYTES), token)
    except OSError:
        token.remove()
        raise
    finally:
        os.umask(old_umask)


async def _opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: Token) -> bool:
    """Whether a connection began with the token; if not, sends an error and closes it."""
    try:
        line = await reader.readline()
        if token.opens(line):
            return True
        if line:
            writer.write(json.dumps(WRONG_TOKEN).encode() + b"\n")
            await writer.drain()
    except (ConnectionError, ValueError, asyncio.CancelledError):
        pass  # As below: the client vanished, sent too much, or the server ends.
    writer.close()
    return False


async def _answer(call: Callable[[str, dict[str, Json]], Awaitable[Json]], line: bytes) -> dict[str, Json]:
    try:
        message = json.loads(line)
        request_id, method, params = message["id"], message["method"], message.get("params", {})
    except (ValueError, KeyError, TypeError, RecursionError):
        return {"id": None, "error": "not a request: expected {id, method, params} on one line"}
    try:
        return {"id": request_id, "result": await call(method, params)}
    except Exception as error:  # The server must outlive any request; the client gets the message.
        return {"id": request_id, "error": str(error) or repr(error)}
