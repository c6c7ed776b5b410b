"""Faults of the links to the registry: an outage, delays, failed requests; for replicas or for a healer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from monkeyproof.config.target_file import TargetFile
from monkeyproof.errors import UsageError
from monkeyproof.faults.network.breaks import block_link
from monkeyproof.faults.network.delays import slow_link
from monkeyproof.faults.network.refusals import failing_link
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import current
from monkeyproof.targets.port import Links
from monkeyproof.types import Json

END = "->registry"


def _drawn(rng: np.random.Generator, target: TargetFile, **arguments: Json) -> Mapping[str, Json] | None:
    links = sorted(name for name, one in target.links.items() if name.endswith(END) and one.protocol == "http")
    return {"link": links[int(rng.integers(len(links)))], **arguments} if links else None


@fault(
    needs=(Links,),
    evidence="the proxy breaks off a connection of our own",
    undo="the proxy removes the fault; by itself when the lease runs out",
    healing="none is needed while replicas keep the model that they have",
    draw=lambda rng, target, intensity: _drawn(rng, target),  # noqa: ARG005
)
def outage(
    link: str = "replica->registry",
    mode: str = "reset",
) -> dict[str, Json]:
    """Reset every connection to the registry; new ones are accepted and reset (or refused: ``refuse-like``).

    Args:
        link: the link of all replicas: ``replica->registry``; of one: ``replica-2->registry``; of a healer:
            ``healer->registry``.
    """
    _check(link)
    return block_link("registry.outage", link, mode, others_needed=False)


@fault(
    needs=(Links,),
    evidence="a request was held that long and then forwarded",
    undo="the proxy removes the fault and forwards what it held; by itself when the lease runs out",
    healing="patience: a timeout that fits, and retries",
    draw=lambda rng, target, intensity: _drawn(
        rng, target, low_ms=round(200 * intensity, 1), high_ms=round(2000 * intensity, 1)
    ),
)
def slow(
    low_ms: float,
    high_ms: float,
    share: float = 1.0,
    link: str = "replica->registry",
) -> dict[str, Json]:
    """Hold a ``share`` of the requests to the registry, each for a time drawn from ``[low_ms, high_ms]``."""
    _check(link)
    return slow_link("registry.slow", link, low_ms, high_ms, share)


@fault(
    needs=(Links,),
    evidence="the proxy answers requests of our own with that status",
    undo="the proxy removes the fault; by itself when the lease runs out",
    healing="retry with backoff",
    draw=lambda rng, target, intensity: _drawn(rng, target, probability=round(0.6 * intensity, 3)),
)
def failing(
    probability: float = 0.3,
    status: int = 503,
    link: str = "replica->registry",
) -> dict[str, Json]:
    """Answer a share of the requests to the registry with ``status``, without asking it. The classic is 30 %."""
    _check(link)
    return failing_link("registry.failing", link, probability, status)


def _check(link: str) -> None:
    file = current().target.file
    if not link.endswith(END):
        known = sorted(name for name in file.links if name.endswith(END))
        raise UsageError(
            f"link: {link!r} does not lead to the registry; these do: {', '.join(known) or 'none'} "
            "(faults of the family network take any link)"
        )
