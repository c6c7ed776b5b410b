"""The plan of one trial, and the record of it that precedes every act."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata

from monkeyproof import __version__
from monkeyproof.clock import Anchor
from monkeyproof.config.target_file import TargetFile
from monkeyproof.record import history
from monkeyproof.types import Json


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """The plan of one trial. Everything random in it comes from ``seed``."""

    experiment: str
    title: str
    experiment_sha256: str
    seed: int
    arm: str
    index: int
    target: str
    """Path of the target file; "" for the running embedded target."""
    folder: str
    experiment_file: str = ""
    expected: tuple[str, ...] = ()
    sham: bool = False
    benign: bool = False
    inject: str = ""
    """With ``evidence`` and ``undo``: activities of an external experiment (see ``experiment.activity_roles``)."""
    evidence: str = ""
    undo: str = ""


def trial_json(plan: TrialPlan, target: TargetFile, anchor: Anchor) -> dict[str, Json]:
    """``trial.json``: everything that a reader of the history needs to interpret it."""
    return {
        "version": history.VERSION,
        **asdict(plan),
        "anchor": asdict(anchor),
        "target_name": target.name,
        "target_sha256": hashlib.sha256(target.path.read_bytes()).hexdigest(),
        "slo": asdict(target.slo),
        "windows": asdict(target.windows),
        "prober": asdict(target.prober),
        "load": asdict(target.load),
        "versions": versions(),
        "machine": machine(),
    }


def versions() -> dict[str, str]:
    """The versions of this package and of the packages that its numbers depend on."""
    names = ("chaostoolkit-lib", "mlflow", "numpy", "scipy", "locust")
    return {"monkeyproof": __version__, **{name: metadata.version(name) for name in names}}


def machine() -> dict[str, Json]:
    """The machine on which the trial runs."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory_bytes / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
