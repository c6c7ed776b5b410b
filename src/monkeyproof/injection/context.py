"""The open trial as faults see it, what a fault says of itself, and the check against the target's limits."""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from monkeyproof.clock import Clock, SystemClock
from monkeyproof.errors import Refusal
from monkeyproof.injection.active import ActiveFaults
from monkeyproof.record.history import HistoryWriter
from monkeyproof.targets.port import Target
from monkeyproof.types import Evidence, Json
from monkeyproof.undo.log import Undo, UndoLog


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault, ready to be injected. Building one changes nothing."""

    fault: str
    """``family.name``, such as ``network.add_latency``."""
    subject: str
    """What the fault acts on: a link, a replica, a model."""
    parameters: Mapping[str, Json]
    apply: Callable[[], Any]
    """Applies the fault; ``evidence`` receives what it returns."""
    evidence: Callable[[Any], Evidence | None]
    """Reads the proof of the effect back from the target; None while there is none. Polled."""
    undo: Undo | None
    """How to undo the fault. None only where ``one_shot`` says why there is nothing to undo."""
    evidence_within_s: float = 5.0
    prior: Mapping[str, Json] = field(default_factory=dict)
    """The state before the fault; recorded with the intent, for a user who has to restore it manually."""
    lease_s: float | None = None
    """The fault ends itself, where it acts, after so long without a renewal. None: it does not."""
    ends_by_itself_s: float | None = None
    """The earliest time after its intent at which a timer of the fault's own begins to end it. None: none does.
    What gets better from then on never counts as healing."""
    pauses_s: float = 0.0
    """The longest time for which the fault pauses by itself. A good stretch that is no longer is no recovery."""
    why_ended: Callable[[], str] | None = None
    """Checks whether the fault is still present, and returns why not; "" while it is. None: its lease tells, or
    nothing can."""
    one_shot: str = ""
    """Why there is nothing to undo: the fault is over at once (a kill)."""

    @property
    def held(self) -> bool:
        """Whether the fault lasts until something reverts it."""
        return self.undo is not None


@dataclass
class Context:
    """The open trial, as the activities of its experiment see it. A process has at most one."""

    folder: Path
    target: Target
    history: HistoryWriter
    undo: UndoLog
    seed: int
    arm: str
    clock: Clock = field(default_factory=SystemClock)
    watched_from_s: float | None = None
    """The trial time since which the target is as declared, under load and probed. None: not known yet."""
    faults_count: int = 0
    prove_within_s: float = math.inf
    """The longest wait for the proof of the next fault: no longer than the fault is wanted."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    before_injection: Callable[[], None] = lambda: None
    """Raises a Refusal where nothing would revert the fault if this process were killed."""
    before_revert: Callable[[], None] = lambda: None
    """Checks whether every injected fault is still present; otherwise nothing was measured."""
    presence_checks: dict[str, Callable[[], str]] = field(default_factory=dict)
    """For each fault in effect, by id: returns why it is no longer present; "" while it is."""
    why_blind: Callable[[], str] = lambda: ""
    """Returns why nothing can be judged from now on: an observer has died. "" while all of them live."""
    planned: list[Injection] | None = None
    """In a dry run, the injections that the trial would make; nothing is injected then. None: no dry run."""
    limit_checks: list[str] = field(default_factory=list)
    """Each check against the target's limits, in words."""
    active_faults: ActiveFaults = field(default_factory=ActiveFaults)
    """The harness's faults that are held at this moment."""

    def rng(self, purpose: str) -> np.random.Generator:
        """A random generator that depends on the trial's seed and the purpose alone, not on the order of calls."""
        return np.random.default_rng([self.seed, zlib.crc32(purpose.encode())])


_current: Context | None = None


def set_current(context: Context | None) -> None:
    """Open a trial in this process, or close it with None."""
    global _current
    _current = context


def current() -> Context:
    """The open trial.

    Raises:
        Refusal: none is open, so a fault would have no record, no proof and no undo.
    """
    if _current is None:
        raise Refusal(
            "no trial is open",
            "run the experiment with 'monkeyproof run', or name the control monkeyproof.control in it",
        )
    return _current


def has_current() -> bool:
    """Whether a trial is open in this process."""
    return _current is not None


def within_limit(name: str, value: float, what: str, *, adds_up: bool = False) -> None:
    """Check a fault against one of the target's limits, before it acts.

    Args:
        name: the limit's name in ``monkeyproof.config.limits.Limits``.
        value: what the fault would use of the limit, in the limit's unit.
        what: the fault and the limited property, for the message.
        adds_up: also count what the active faults use of the limit, wherever they are: one request may meet all
            of them.

    Raises:
        Refusal: the fault goes further than the target allows.
    """
    context = current()
    file = context.target.file
    limit = getattr(file.limits_in_force, name)
    if limit is None:
        return
    before = context.active_faults.used(name) if adds_up else 0.0
    if before:
        what += f", together with the {before:g} of the active faults,"
    together = min(value + before, 1.0) if name == "rows_share" else value + before
    context.limit_checks.append(f"{name}: {together:g} of at most {limit:g}")
    if together > limit:
        raise Refusal(
            f"{what} would be {together:g}, and target {file.name!r} allows {name} {limit:g}",
            f"lower it in the experiment, or raise limits.{name} in {file.path} if the target may take that",
        )
    if adds_up:
        context.active_faults.will_use(name, value)
