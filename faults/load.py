"""Faults of load: too many requests, retries without patience, everybody asking for the same."""

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
NEARLY = 0.5
"""Of what was due, so much has to have been sent: a target that is overloaded slows its clients as well."""
_COUNTER = "replica_requests_total"
_ENDED = "the additional requests"


@fault(
    evidence="its own count of requests, sent and answered, beside the target's counter where it has one",
    undo="the process that asks is ended; by itself when the harness is gone or its time is over",
    healing="shed or queue what is too much, add replicas",
    draw=lambda rng, target, intensity: {"rate_per_s": round(20 + 180 * intensity)},  # noqa: ARG005
)
def overload(rate_per_s: float, spike_s: float = 0.0) -> dict[str, Json]:
    """Ask the target ``rate_per_s`` more golden questions a second, whether it answers or not.

    A step: the rate is there at once and stays. With ``spike_s`` it rises to ``rate_per_s`` and falls to nothing
    within that time, once. On a machine that is shared with the target and the prober, requests cost all of them
    time; a trial whose prober was late says so.
    """
    check_between("rate_per_s", rate_per_s, 0.0, RATE_MOST_PER_S, above=True)
    check_between("spike_s", spike_s, 0.0, SPIKE_MOST_S)
    return _ask("overload", _Ask(float(rate_per_s), spike_s=float(spike_s)), {"spike_s": float(spike_s)})


@fault(
    evidence="its own count of requests and of retries",
    undo="the process that asks is ended; by itself when the harness is gone or its time is over",
    healing="a retry budget, backoff with jitter, shed load early",
)
def retry_storm(rate_per_s: float, retries: int = 3) -> dict[str, Json]:
    """Ask ``rate_per_s`` golden questions a second as impatient clients: what fails is asked again at once.

    Up to ``retries`` times, without a pause. A storm needs failures: inject what makes requests fail before it
    (``network.fail_requests`` on the users' link, say), for without a single retry it is not proven.
    """
    check_between("rate_per_s", rate_per_s, 0.0, RATE_MOST_PER_S, above=True)
    check_count("retries", retries, 1, RETRIES_MOST)
    if rate_per_s * (1 + retries) > ALL_MOST_PER_S:
        raise UsageError(
            f"rate_per_s, retries: {rate_per_s:g} a second with {retries} retries each may be "
            f"{rate_per_s * (1 + retries):g} a second, and at most {ALL_MOST_PER_S:g} are sent"
        )
    return _ask("retry_storm", _Ask(float(rate_per_s), retries=retries), {"retries": retries})


@fault(
    evidence="its own count of requests, all of them the same, beside the target's counter where it has one",
    undo="the process that asks is ended; by itself when the harness is gone or its time is over",
    healing="cache, or join equal requests; spread what is partitioned by key",
    draw=lambda rng, target, intensity: {"rate_per_s": round(20 + 130 * intensity)},  # noqa: ARG005
)
def hot_key(rate_per_s: float, question: int = -1) -> dict[str, Json]:
    """Ask one golden question ``rate_per_s`` times a second: one entity that everybody wants at once.

    ``question`` is its number in the golden set, from 0; -1 is a random one, by the trial's seed.
    """
    check_between("rate_per_s", rate_per_s, 0.0, RATE_MOST_PER_S, above=True)
    golden = current().target.file.predict.golden
    count = sum(1 for line in golden.read_text(encoding="utf-8").splitlines() if line.strip())
    check_count("question", question, -1, count - 1)
    only = question if question >= 0 else int(current().rng("load.hot_key").integers(count))
    return _ask("hot_key", _Ask(float(rate_per_s), only=only), {"question": only})


@dataclass(frozen=True, slots=True)
class _Ask:
    """What the process is to do."""

    rate_per_s: float
    spike_s: float = 0.0
    retries: int = 0
    only: int = -1


def _ask(name: str, what: _Ask, parameters: Mapping[str, Json]) -> dict[str, Json]:
    context = current()
    ballast_id = stressor.new_id("traffic")
    out = context.folder / f"{ballast_id}.json"
    seed = int(context.rng(f"load.{name}").integers(2**31))
    arguments = ["--target", str(context.target.file.path), "--out", str(out), "--seed", str(seed)]
    arguments += ["--rate-per-s", f"{what.rate_per_s:g}", "--spike-s", f"{what.spike_s:g}"]
    arguments += ["--retries", str(what.retries), "--only", str(what.only)]
    counted_before: list[tuple[float, float | None]] = []

    def apply() -> None:
        stressor.start("traffic", ballast_id, arguments)
        counted_before.append((context.clock.monotonic_s(), counted(context.target)))

    def evidence(_: object) -> Evidence | None:
        done = _read(out)
        for_s = done.get("written_monotonic_s", 0.0) - done.get("started_monotonic_s", 0.0)
        least_s = min(PROVEN_AFTER_S, what.spike_s) if what.spike_s else PROVEN_AFTER_S
        if for_s < least_s or done["sent"] < NEARLY * done["due"] or not done["answered"] + done["failed"]:
            return None
        if what.retries and not done["retries"]:
            return None
        data = {**done, "sent_per_s": round(done["sent"] / for_s, 1)}
        words = f"{done['sent']} requests in {for_s:.1f} s ({done['answered']} answered"
        words += f", {done['retries']} retries after {done['failed']} failures)" if what.retries else ")"
        since_s, before = counted_before[0]
        if before is not None and (now := counted(context.target)) is not None and now >= before:
            data["target_per_s"] = round((now - before) / max(context.clock.monotonic_s() - since_s, 1e-9), 1)
            words += f"; the target counts {data['target_per_s']:g} a second in all"
        return Evidence(words, data)

    return inject(
        Injection(
            fault=f"load.{name}",
            subject="predict",
            parameters={"rate_per_s": what.rate_per_s, **parameters, "seed": seed},
            apply=apply,
            evidence=evidence,
            undo=stressor.undo(ballast_id, _ENDED),
            evidence_within_s=10.0,
            lease_s=LEASE_S,
            # The rate of a spike falls from its middle on.
            ends_by_itself_s=what.spike_s / 2 or None,
            why_gone=stressor.why_ended(ballast_id),
        )
    )


def counted(target: Target) -> float | None:
    """How many requests the target says that it answered, over all its parts; None if it does not say."""
    telemetry = target.find(Telemetry)
    if telemetry is None:
        return None
    found: list[float] = []
    with httpx.Client(timeout=1.0, trust_env=False, verify=False) as client:
        for url in telemetry.metrics_urls().values():
            try:
                lines = client.get(url).text.splitlines()
            except httpx.HTTPError:
                return None  # A part that is silent would make the sum shrink.
            found += [float(line.rpartition(" ")[2]) for line in lines if line.startswith(_COUNTER)]
    return sum(found) if found else None


def _read(path: Path) -> dict[str, Json]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
