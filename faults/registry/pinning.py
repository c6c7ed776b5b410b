"""Pins one replica to a version, so that neither a release nor a rollback reaches it."""

from __future__ import annotations

from monkeyproof.errors import Refusal, UsageError
from monkeyproof.faults.support.champion import FOLLOWED_WITHIN_S, metrics_of, version_named, worst_but
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import Injection, current, inject
from monkeyproof.targets.port import Pins, Registry, Replicas, Target, require
from monkeyproof.types import Evidence, Json
from monkeyproof.undo.log import Undo


@fault(
    needs=(Registry, Replicas, Pins),
    evidence="the replica reports that it is pinned to that version, and serves it",
    undo="the replica follows the registry again, unless another program pinned it to another version since",
    healing="send the replica's traffic elsewhere: no alias reaches it",
    draw=lambda rng, target, intensity: {"replica": ""} if target.stack else None,  # noqa: ARG005
)
def pin(
    replica: str = "",
    version: str = "",
) -> dict[str, Json]:
    """Pin one replica to a version, whatever the registry says: a rollback reaches the others only.

    Args:
        replica: its name; "" is a random one, by the trial's seed.
        version: the version; "" is the one with the lowest accuracy tag.
    """
    context = current()
    target = context.target
    registry, replicas, pins = require(target, Registry), require(target, Replicas), require(target, Pins)
    names = sorted(one.name for one in replicas.list())
    if replica and replica not in names:
        raise UsageError(f"replica: no replica {replica!r}; there are {', '.join(names) or 'none'}")
    if not names:
        raise Refusal("there are no replicas", "wait until the target is steady")
    chosen = replica or names[int(context.rng("registry.pin").integers(len(names)))]
    versions, champion = registry.versions(), registry.champion()
    to = version_named(versions, version) if version else worst_but(versions, champion="")
    if now := pins.pinned().get(chosen):
        # The undo would end a pin that another program made.
        raise Refusal(f"{chosen} is pinned to version {now} already, by another program", "choose another replica")

    def evidence(_: object) -> Evidence | None:
        # That it serves the version proves nothing while that version is champion.
        metrics = next((metrics_of(one) for one in replicas.list() if one.name == chosen), {})
        found = {f"{metrics.get(name, 0):.0f}" for name in ("replica_model_pinned", "replica_model_version")}
        if found != {to.version} or pins.pinned().get(chosen) != to.version:
            return None
        return Evidence(
            f"{chosen} reports that it is pinned to version {to.version}, whatever is champion, and serves it",
            {"replica": chosen, "version": to.version, "champion": registry.champion()},
        )

    def why_ended() -> str:
        found = pins.pinned().get(chosen, "nothing")
        return "" if found == to.version else f"{chosen} is pinned to {found}, and was to {to.version}"

    return inject(
        Injection(
            fault="registry.pin",
            subject=chosen,
            parameters={"replica": chosen, "asked_for": replica, "pinned_to": to.version},
            apply=lambda: pins.pin(chosen, to.version),
            evidence=evidence,
            undo=Undo("monkeyproof.faults.registry:unpin", {"replica": chosen, "version": to.version}),
            evidence_within_s=FOLLOWED_WITHIN_S,
            prior={"champion": champion},
            why_ended=why_ended,
        )
    )


def unpin(target: Target, replica: str, version: str) -> str:
    """Undo of ``pin``. Idempotent; a pin that another program made stays."""
    pins = require(target, Pins)
    now = pins.pinned().get(replica, "")
    if now and now != version:
        return f"{replica} is pinned to version {now} by now, by another program: left as it is"
    if now:
        pins.unpin(replica)
    return f"{replica} follows the registry {'again' if now else 'already'}"
