"""Loads a model in a process of its own: the child's side, and the parent's reading of its result.

A pickled model with one flipped bit may answer wrongly, raise, hang, eat all memory or take its process down
with a segmentation fault. Each of these is an answer here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from monkeyproof.runtime import procfs
from monkeyproof.types import Json

TRIAL_LIMIT_S = 5.0
EXTRA_MEMORY_BYTES = 1024 * 1024 * 1024
MAX_TRIAL_ANSWER_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TrialQuestion:
    """Which model, its expected digest ("" if it is not known), and the rows to ask about, shape (n, features)."""

    model: Path
    sha256: str
    rows: Sequence[Sequence[float]]


def load_verified(content: bytes, sha256: str) -> object:
    """Unpickle ``content`` if its digest is ``sha256``; "" for a digest skips the comparison.

    Raises:
        ValueError: the digests differ.
    """
    found = hashlib.sha256(content).hexdigest()
    if sha256 and found != sha256:
        raise ValueError(f"sha256 differs: the file has {found[:12]}..., its publisher recorded {sha256[:12]}...")
    return pickle.loads(content)  # noqa: S301 - its digest vouches for it, or its process may die of it


def answer_trial(question: TrialQuestion, answer: int) -> None:
    """In the child: load, predict, and write the result into the open file ``answer``."""
    import numpy as np  # Not above: the fork server sets numpy's number of threads before it loads it.

    _limit_resources()
    try:
        model = load_verified(question.model.read_bytes(), question.sha256)
        predictions = [float(one) for one in model.predict(np.array(question.rows, dtype=np.float64))]  # type: ignore[attr-defined]
        if len(predictions) != len(question.rows) or not all(map(math.isfinite, predictions)):
            raise ValueError(f"{len(question.rows)} rows gave {len(predictions)} predictions, or some not finite")
        result: dict[str, Json] = {"ok": True, "why": "", "predictions": predictions}
    except Exception as error:
        why = str(error) if isinstance(error, OSError | ValueError) else repr(error)
        result = {"ok": False, "why": why[:500], "predictions": []}
    os.write(answer, json.dumps(result).encode())


def trial_result(answer: bytes, status: int, timed_out: bool) -> dict[str, Json]:
    """In the parent: the child's answer, or why there is none. ``status`` is waitpid's."""
    if timed_out:
        return _refused(f"loading it and asking it took longer than {TRIAL_LIMIT_S:g} s")
    if status != 0:
        return _refused(f"the process that loaded it {how_it_ended(status)}")
    try:
        result = json.loads(answer)
        return {"ok": result["ok"] is True, "why": str(result["why"]), "predictions": list(result["predictions"])}
    except (ValueError, KeyError, TypeError):
        return _refused("the process that loaded it gave no answer that can be read")


def how_it_ended(status: int) -> str:
    """A sentence part for a wait status: "died by signal 11 (SIGSEGV)"."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with exit status {code}"
    try:
        return f"died by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"died by signal {-code}"


def _refused(why: str) -> dict[str, Json]:
    return {"ok": False, "why": why, "predictions": []}


def _limit_resources() -> None:
    in_use_bytes = procfs.address_space_bytes(os.getpid())
    for kind, limit in (
        (resource.RLIMIT_AS, in_use_bytes + EXTRA_MEMORY_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, MAX_TRIAL_ANSWER_BYTES),
        (resource.RLIMIT_CPU, math.ceil(TRIAL_LIMIT_S)),
    ):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
