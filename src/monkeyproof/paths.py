"""The harness's folders. MONKEYPROOF_HOME moves all of them, MONKEYPROOF_CACHE only the cache."""

from __future__ import annotations

import os
import tempfile
from importlib import resources
from pathlib import Path
from typing import BinaryIO

SOCKET_DIR_PREFIX = "mp-"
PRIVATE_UMASK = 0o077


def home() -> Path:
    """The harness's own state: the running target, its caches. Private to the user (0700)."""
    configured = os.environ.get("MONKEYPROOF_HOME")
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    path = Path(configured) if configured else Path(state) / "monkeyproof"
    make_private(path)
    return path.resolve()


def make_private(path: Path) -> None:
    """Create a folder and its missing parents with mode 0700; folders that exist keep their mode."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)


def target_dir() -> Path:
    """The folder of the embedded target: its target file, logs and data."""
    return home() / "target"


def cache_dir() -> Path:
    """The folder for results that take seconds to compute and never change: trained models and their registry."""
    configured = os.environ.get("MONKEYPROOF_CACHE")
    path = Path(configured) if configured else home() / "cache"
    make_private(path)
    return path.resolve()


def keep_private() -> None:
    """Make all files that this process and its children create from here on private to the user (0600, 0700).

    For the harness's own processes; in others (pytest, ``chaos run``) files are opened with ``open_private``.
    """
    os.umask(PRIVATE_UMASK)


def open_private(path: Path, *, append: bool = False) -> BinaryIO:
    """Open a file for writing; one that is created here is private to the user, whatever the umask."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC)
    return os.fdopen(os.open(path, flags, 0o600), "ab" if append else "wb")


def socket_dir() -> Path:
    """A fresh private folder for Unix sockets, whose paths may not exceed 107 bytes."""
    return Path(tempfile.mkdtemp(prefix=SOCKET_DIR_PREFIX))


def experiments() -> Path:
    """The catalogue that ships with the package."""
    return Path(str(resources.files("monkeyproof.experiments")))
