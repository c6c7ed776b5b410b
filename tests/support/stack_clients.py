"""Asking the embedded target as its users do, and looking for what it left running."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from monkeyproof.clock import wait_for
from monkeyproof.config.target_file import TargetFile


@dataclass(frozen=True)
class Reply:
    """What came back for one golden question."""

    status: int
    right: bool
    version: str
    degraded: str | None
    latency_s: float


def questions(file: TargetFile) -> Sequence[Mapping[str, object]]:
    return [json.loads(line) for line in file.predict.golden.read_text().splitlines()]


def ask(file: TargetFile, question: Mapping[str, object], timeout_s: float = 3.0) -> Reply:
    url = urlsplit(file.predict.url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=timeout_s)
    began_s = time.monotonic()
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", url.path, body=json.dumps(question["body"]), headers=headers)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    right = answer.status == 200 and json.loads(content)["predictions"] == [question["expect"]]
    return Reply(
        answer.status,
        right,
        answer.getheader("X-Model-Version", ""),
        answer.getheader("X-Degraded"),
        time.monotonic() - began_s,
    )


def all_right(file: TargetFile, n: int = 20) -> bool:
    """Whether the next ``n`` answers all come, and are right and not degraded."""
    try:
        replies = [ask(file, question) for question in questions(file)[:n]]
    except (OSError, http.client.HTTPException):
        return False
    return all(reply.right and reply.degraded is None for reply in replies)


@dataclass
class Load:
    """What steady load saw: how often what came back."""

    seen: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


@contextmanager
def steady_load(file: TargetFile, rate_per_s: float = 50.0, threads_count: int = 6) -> Iterator[Load]:
    """Ask golden questions all the while, some at the same time."""
    load, stop, golden = Load(), threading.Event(), questions(file)

    def keep_asking(first: int) -> None:
        number = first
        while not stop.wait(threads_count / rate_per_s):
            number += threads_count
            try:
                reply = ask(file, golden[number % len(golden)])
            except (OSError, http.client.HTTPException) as error:
                load.seen["no answer"] += 1
                load.problems.append(repr(error))
                continue
            load.seen["right" if reply.right else f"HTTP {reply.status}, wrong"] += 1

    threads = [threading.Thread(target=keep_asking, args=(first,)) for first in range(threads_count)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=10)


def processes_of(home: Path) -> Mapping[int, str]:
    """Every process that was started with this home in its environment, by pid; not the dead ones."""
    wanted = f"MONKEYPROOF_HOME={home}".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def eventually(condition: Callable[[], bool], within_s: float) -> bool:
    return wait_for(condition, within_s=within_s, every_s=0.05)
