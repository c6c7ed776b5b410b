"""Faults of load: overload, retry storms, hot keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from monkeyproof.errors import UsageError
from monkeyproof.faults.support import stressor
from monkeyproof.faults.support.checks import check_between, check_count
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import Injection, current, inject
from monkeyproof.targets.port import LEASE_S, Target, Telemetry
from monkeyproof.types import Evidence, Json

__all__ = ["hot_key", "overload", "retry_storm"]

RATE_MOST_PER_S = 1000.0
RETRIES_MOST = 10
ALL_MOST_PER_S = 2000.0
"""With retries."""
SPIKE_MOST_S = 60.0
PROVEN_AFTER_S = 1.0
EVIDENCE_SHARE_MIN = 0.5
"""Of the requests that were due, so many have to be sent: an overloaded target slows its clients as well."""
_COUNTER = "replica_requests_total"
_ENDED = "the additional requests"


@fault(
    evidence="its own count of requests, sent and answered, beside the target's counter where it has one",
    undo="the stressor that asks is ended; by itself when the harness has ended or its time is over",
    healing="shed or queue what is too much, add replicas",
    draw=lambda rng, target, intensity: {"rate_per_s": round(20 + 180 * intensity)},  # noqa: ARG005
)
def overload(rate_per_s: float, spike_s: float = 0.0) -> dict[str, Json]:
    """Ask the target ``rate_per_s`` more golden questions a second, whether it answers or not.

    A step: the rate is there at once and stays. With ``spike_s`` it rises to ``rate_per_s`` and falls to nothing
    within that time, once. On a machine that is shared with the target and the prober, requests cost all of them
    time; a trial whose prober was late reports it.
    """
    check_between("rate_per_s", rate_per_s, 0.0, RATE_MOST_PER_S, above=True)
    check_between("spike_s", spike_s, 0.0, SPIKE_MOST_S)
    return _inject_traffic(
        "overload", _Traffic(float(rate_per_s), spike_s=float(spike_s)), {"spike_s": float(spike_s)}
    )


@fault(
    evidence="its own count of requests and of retries",
    undo="the stressor that asks is ended; by itself when the harness has ended or its time is over",
    healing="a retry budget, backoff with jitter, shed load early",
)
def retry_storm(rate_per_s: float, retries: int = 3) -> dict[str, Json]:
    """Ask ``rate_per_s`` golden questions a second, and retry at once what fails, as clients without backoff do.

    Up to ``retries`` times, without a pause. A storm needs failures, so inject a fault before it that makes
    requests fail (``network.fail_requests`` on the users' link, say): without a single retry it is not proven.
    """
    check_between("rate_per_s", rate_per_s, 0.0, RATE_MOST_PER_S, above=True)
    check_count("retries", retries, 1, RETRIES_MOST)
    if rate_per_s * (1 + retries) > ALL_MOST_PER_S:
        raise UsageError(
            f"rate_per_s, retries: {rate_per_s:g} a second with {retries} retries each may be "
            f"{rate_per_s * (1 + retries):g} a second, and at most {ALL_MOST_PER_S:g} are sent"
        )
    return _inject_traffic("retry_storm", _Traffic(float(rate_per_s), retries=retries), {"retries": retries})


@fault(
    evidence="its own count of requests, all of them the same, beside the target's counter where it has one",
    undo="the stressor that asks is ended; by itself when the harness has ended or its time is over",
    healing="cache, or join equal requests; spread what is partitioned by key",
    draw=lambda rng, target, intensity: {"rate_per_s": round(20 + 130 * intensity)},  # noqa: ARG005
)
def hot_key(rate_per_s: float, question: int = -1) -> dict[str, Json]:
    """Ask one golden question ``rate_per_s`` times a second: one entity that all clients want at once.

    ``question`` is its number in the golden set, from 0; -1 is a random one, by the trial's seed.
    """
    check_between("rate_per_s", rate_per_s, 0.0, RATE_MOST_PER_S, above=True)
    golden = current().target.file.predict.golden
    count = sum(1 for line in golden.read_text(encoding="utf-8").splitlines() if line.strip())
    check_count("question", question, -1, count - 1)
    only = question if question >= 0 else int(current().rng("load.hot_key").integers(count))
    return _inject_traffic("hot_key", _Traffic(float(rate_per_s), only=only), {"question": only})


@dataclass(frozen=True, slots=True)
class _Traffic:
    """What the stressor has to send."""

    rate_per_s: float
    spike_s: float = 0.0
    retries: int = 0
    only: int = -1


def _inject_traffic(name: str, traffic: _Traffic, parameters: Mapping[str, Json]) -> dict[str, Json]:
    context = current()
    stressor_id = stressor.new_id("traffic")
    out = context.folder / f"{stressor_id}.json"
    seed = int(context.rng(f"load.{name}").integers(2**31))
    arguments = ["--target", str(context.target.file.path), "--out", str(out), "--seed", str(seed)]
    arguments += ["--rate-per-s", f"{traffic.rate_per_s:g}", "--spike-s", f"{traffic.spike_s:g}"]
    arguments += ["--retries", str(traffic.retries), "--only", str(traffic.only)]
    counted_before: list[tuple[float, float | None]] = []

    def apply() -> None:
        stressor.start("traffic", stressor_id, arguments)
        counted_before.append((context.clock.monotonic_s(), requests_answered(context.target)))

    def evidence(_: object) -> Evidence | None:
        done = _read(out)
        for_s = done.get("written_monotonic_s", 0.0) - done.get("started_monotonic_s", 0.0)
        least_s = min(PROVEN_AFTER_S, traffic.spike_s) if traffic.spike_s else PROVEN_AFTER_S
        if (
            for_s < least_s
            or done["sent"] < EVIDENCE_SHARE_MIN * done["due"]
            or not done["answered"] + done["failed"]
        ):
            return None
        if traffic.retries and not done["retries"]:
            return None
        data = {**done, "sent_per_s": round(done["sent"] / for_s, 1)}
        words = f"{done['sent']} requests in {for_s:.1f} s ({done['answered']} answered"
        words += f", {done['retries']} retries after {done['failed']} failures)" if traffic.retries else ")"
        since_s, before = counted_before[0]
        if before is not None and (now := requests_answered(context.target)) is not None and now >= before:
            data["target_per_s"] = round((now - before) / max(context.clock.monotonic_s() - since_s, 1e-9), 1)
            words += f"; the target counts {data['target_per_s']:g} a second in all"
        return Evidence(words, data)

    return inject(
        Injection(
            fault=f"load.{name}",
            subject="predict",
            parameters={"rate_per_s": traffic.rate_per_s, **parameters, "seed": seed},
            apply=apply,
            evidence=evidence,
            undo=stressor.undo(stressor_id, _ENDED),
            evidence_within_s=10.0,
            lease_s=LEASE_S,
            # The rate of a spike falls from its middle on.
            ends_by_itself_s=traffic.spike_s / 2 or None,
            why_ended=stressor.why_ended(stressor_id),
        )
    )


def requests_answered(target: Target) -> float | None:
    """How many requests the target reports that it answered, over all its parts; None if it reports none."""
    telemetry = target.find(Telemetry)
    if telemetry is None:
        return None
    found: list[float] = []
    with httpx.Client(timeout=1.0, trust_env=False, verify=False) as client:
        for url in telemetry.metrics_urls().values():
            try:
                lines = client.get(url).text.splitlines()
            except httpx.HTTPError:
                return None  # Without a part that does not answer, the sum would shrink.
            found += [float(line.rpartition(" ")[2]) for line in lines if line.startswith(_COUNTER)]
    return sum(found) if found else None


def _read(path: Path) -> dict[str, Json]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
