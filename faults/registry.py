"""Faults of the model registry: the wrong version is made the champion."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from monkeyproof.errors import Refusal, TargetError, UsageError
from monkeyproof.injection import Injection, current, inject
from monkeyproof.repertoire import fault
from monkeyproof.targets.port import ModelVersion, Registry, Replicas, Target, require
from monkeyproof.types import Evidence, Json
from monkeyproof.undo import Undo

__all__ = ["promote_degraded", "restore_champion"]

_SCRAPE_TIMEOUT_S = 1.0


@fault(
    needs=(Registry, Replicas),
    evidence="the registry names it as champion, and a replica serves it",
    undo="the old champion is champion again, unless somebody chose another since",
    healing="roll back to the last version that verifies",
    draw=lambda rng, target, intensity: {} if target.registry else None,  # noqa: ARG005
)
def promote_degraded(
    version: str = "",
) -> dict[str, Json]:
    """Make a worse model the champion; ``version`` "" is the one with the lowest accuracy tag.

    Proven by the registry, which reads it back, and by a replica that serves it.
    """
    context = current()
    registry, replicas = require(context.target, Registry), require(context.target, Replicas)
    previous, versions = registry.champion(), registry.versions()
    chosen = _choose(versions, previous, str(version))
    sha256 = _digest_of(versions, previous)

    def evidence(_: object) -> Evidence | None:
        if registry.champion() != chosen.version:
            return None
        serving = [one.name for one in replicas.list() if _served(one.metrics_url) == chosen.version]
        if not serving:
            return None
        accuracy = f" (accuracy {chosen.accuracy:.3f})" if chosen.accuracy is not None else ""
        return Evidence(
            f"the champion is version {chosen.version}{accuracy} instead of {previous}; {', '.join(serving)} "
            f"serve{'s' if len(serving) == 1 else ''} it",
            {"champion": chosen.version, "previous": previous, "accuracy": chosen.accuracy, "serving": serving},
        )

    def why_gone() -> str:
        now = registry.champion()
        return "" if now == chosen.version else f"the champion is version {now}, and was {chosen.version}"

    return inject(
        Injection(
            fault="registry.promote_degraded",
            subject="champion",
            parameters={"version": chosen.version, "previous": previous, "accuracy": chosen.accuracy},
            apply=lambda: registry.set_champion(chosen.version),
            evidence=evidence,
            undo=Undo(
                "monkeyproof.faults.registry:restore_champion",
                {"promoted": chosen.version, "previous": previous, "sha256": sha256},
            ),
            evidence_within_s=10.0,
            prior={"champion": previous, "sha256": sha256},
            why_gone=why_gone,
        )
    )


def restore_champion(target: Target, promoted: str, previous: str, sha256: str = "") -> str:
    """Undo of ``promote_degraded``, unless somebody else chose another champion since. Idempotent.

    Args:
        sha256: digest of the old champion's artifact before the fault, as its publisher gave it; "" for unknown.
    """
    registry = require(target, Registry)
    now = registry.champion()
    if now == previous:
        return f"the champion is version {previous} already"
    if now != promoted:
        return f"the champion is version {now} by now, neither ours ({promoted}) nor the old one: left as it is"
    versions = registry.versions()
    if all(one.version != previous for one in versions):
        raise TargetError(f"the champion was version {previous}, which is gone: choose another for {promoted}")
    registry.set_champion(previous)
    now = registry.champion()
    if now != previous:
        raise TargetError(f"the champion should be version {previous} again, and is {now}")
    changed = sha256 and _digest_of(versions, previous) != sha256
    return f"the champion is version {previous} again" + (
        ", whose digest somebody else has changed since" if changed else ""
    )


def _digest_of(versions: Sequence[ModelVersion], version: str) -> str:
    return next((one.sha256 for one in versions if one.version == version), "")


def _choose(versions: Sequence[ModelVersion], champion: str, asked_for: str) -> ModelVersion:
    """The version to promote.

    Raises:
        UsageError: there is none of that name.
        Refusal: it is the champion, or no version is known to be worse than others.
    """
    others = [one for one in versions if one.version != champion]
    if asked_for:
        if asked_for == champion:
            raise Refusal(f"version {champion} is the champion already", "name another version")
        found = next((one for one in others if one.version == asked_for), None)
        if found is None:
            known = ", ".join(one.version for one in versions) or "none"
            raise UsageError(f"version: the registry has no version {asked_for!r}; it has {known}")
        return found
    tagged = [(one.accuracy, one) for one in others if one.accuracy is not None]
    if not tagged:
        raise Refusal(
            "no version but the champion has an accuracy tag, so none is known to be worse", "name a version"
        )
    return min(tagged, key=lambda pair: pair[0])[1]


def _served(metrics_url: str) -> str | None:
    """The version that a replica says it serves; None if it says nothing."""
    import httpx
    from prometheus_client.parser import text_string_to_metric_families

    with contextlib.suppress(httpx.HTTPError, ValueError):
        answer = httpx.get(metrics_url, timeout=_SCRAPE_TIMEOUT_S, trust_env=False)
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                if sample.name == "replica_model_version":
                    return f"{sample.value:.0f}"
    return None
