"""Where things are kept. Everything can be moved with MONKEYPROOF_HOME, the cache alone with MONKEYPROOF_CACHE."""

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
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path.resolve()


def target_dir() -> Path:
    """The folder of the embedded target: its target file, logs and data."""
    return home() / "target"


def cache_dir() -> Path:
    """What costs seconds to make and never changes: trained models and their registry."""
    configured = os.environ.get("MONKEYPROOF_CACHE")
    path = Path(configured) if configured else home() / "cache"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path.resolve()


def keep_private() -> None:
    """From here on, what this process and those that it starts write is the user's alone (0600, 0700).

    For processes that are the harness's own; in somebody else's (pytest, ``chaos run``) files are opened with
    ``open_private``.
    """
    os.umask(PRIVATE_UMASK)


def open_private(path: Path, *, append: bool = False) -> BinaryIO:
    """Open a file for writing, the user's alone if it is made here, whatever the umask of this process."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC)
    return os.fdopen(os.open(path, flags, 0o600), "ab" if append else "wb")


def socket_dir() -> Path:
    """A fresh private folder for Unix sockets, whose paths may not exceed 107 bytes."""
    return Path(tempfile.mkdtemp(prefix=SOCKET_DIR_PREFIX))


def experiments() -> Path:
    """The catalogue that ships with the package."""
    return Path(str(resources.files("monkeyproof.experiments")))
