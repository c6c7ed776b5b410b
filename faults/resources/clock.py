"""Clock skew: one process has a wrong wall clock."""

from __future__ import annotations

import email.utils
import http.client
import time
from pathlib import Path
from urllib.parse import urlsplit

from monkeyproof.errors import Refusal
from monkeyproof.faults.support import stressor
from monkeyproof.faults.support.checks import check_between
from monkeyproof.faults.support.replica_choice import choose_replica, prior_state, replica_named
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import Injection, current, inject
from monkeyproof.targets.port import (
    LEASE_S,
    Processes,
    Replicas,
    StartCondition,
    Starts,
    Target,
    require,
)
from monkeyproof.types import Evidence, Json
from monkeyproof.undo.log import Undo

DAY_S = 86_400.0
NEAR_S = 2.5
"""HTTP dates are whole seconds, and made once a second."""
STARTS_WITHIN_S = 60.0
_PLACES = tuple(f"usr/{place}/faketime/libfaketimeMT.so.1" for place in ("lib/*", "lib*", "local/lib"))


@fault(
    needs=(Replicas, Starts, Processes),
    evidence="the Date header of its own answers is off by that much",
    undo="the supervisor restarts it with the right clock; by itself when the lease runs out",
    healing="synchronise clocks; measure ages with a monotonic clock",
)
def skew_clock(name: str = "", offset_s: float = 3600.0) -> dict[str, Json]:
    """Restart one replica with a wall clock that is ``offset_s`` ahead (behind, if negative).

    Through libfaketime, which has to be installed (Debian: libfaketime); a clock that measures intervals
    (CLOCK_MONOTONIC) stays right, as it does on a machine whose time is set. The restart is part of the fault.
    """
    check_between("offset_s", offset_s, -3650 * DAY_S, 3650 * DAY_S)
    if abs(offset_s) < 2 * NEAR_S:
        raise Refusal(f"a skew of {offset_s:g} s cannot be proven", f"choose at least {2 * NEAR_S:g} s")
    target = current().target
    stressor.require_this_machine(target, "clock skew")
    replicas, starts = require(target, Replicas), require(target, Starts)
    replica = choose_replica(replicas, name, "resources.skew_clock")
    if replica.name in starts.conditions():
        raise Refusal(
            f"another fault already changes the next start of {replica.name}", "wait until it has started"
        )
    faketime = find_faketime()
    environment = {
        "LD_PRELOAD": str(faketime),
        "FAKETIME": f"{offset_s:+g}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    condition = StartCondition(0.0, environment)

    def evidence(_: object) -> Evidence | None:
        now = replica_named(replicas, replica.name)
        if now is None or now.pid in (None, replica.pid):
            return None
        off_s = clock_off_s(now.metrics_url)
        if off_s is None or abs(off_s - offset_s) > NEAR_S:
            return None
        return Evidence(
            f"{replica.name}: pid {now.pid} dates its answers {off_s:+.0f} s off", {"pid": now.pid, "off_s": off_s}
        )

    return inject(
        Injection(
            fault="resources.skew_clock",
            subject=replica.name,
            parameters={"name": replica.name, "asked_for": name, "offset_s": float(offset_s)},
            apply=lambda: starts.end(replica.name, condition, notice_s=2.0, lease_s=LEASE_S),
            evidence=evidence,
            undo=Undo("monkeyproof.faults.resources:start_with_right_clock", {"name": replica.name}),
            evidence_within_s=STARTS_WITHIN_S,
            prior=prior_state(replica),
            lease_s=LEASE_S,
        )
    )


def start_with_right_clock(target: Target, name: str) -> str:
    """Undo of ``skew_clock``. Idempotent."""
    if require(target, Starts).release(name):
        return f"{name}: restarted with the right clock"
    return f"{name}: its clock was right already"


def find_faketime() -> Path:
    """The path of libfaketime.

    Raises:
        Refusal: it is not installed.
    """
    for place in _PLACES:
        for found in sorted(Path("/").glob(place)):
            return found
    raise Refusal(
        "a skewed clock for one process needs libfaketime, which is not installed",
        "run: apt install libfaketime; or leave this fault out",
    )


def clock_off_s(url: str) -> float | None:
    """How far ahead of this machine's clock the date of an answer is; None if there is no answer, or no date."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=1.0)
    try:
        connection.request("GET", parts.path or "/")
        response = connection.getresponse()
        response.read()
        dated = email.utils.parsedate_to_datetime(response.getheader("Date") or "")
        return round(dated.timestamp() - time.time(), 1)
    except (OSError, http.client.HTTPException, ValueError, TypeError):
        return None
    finally:
        connection.close()
