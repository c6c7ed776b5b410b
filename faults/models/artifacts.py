"""The stored artifact of a version is damaged: bits flip, its end is gone, or all of it.

Replicas that serve the version have it in memory and notice nothing. Whoever loads it next does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from monkeyproof.config.target_file import TargetFile
from monkeyproof.errors import TargetError, UsageError
from monkeyproof.faults.models.formats import choose_bits
from monkeyproof.faults.support.bitflips import digest_of, flip_in_file
from monkeyproof.faults.support.champion import digest_given, version_named
from monkeyproof.faults.support.checks import check_count, check_number
from monkeyproof.faults.support.file_restore import (
    MISSING,
    Kept,
    digest_now,
    digest_with_flips,
    keep,
    old_bytes,
)
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import Injection, current, inject
from monkeyproof.targets.port import ArtifactFiles, Registry, require
from monkeyproof.types import Evidence, Json
from monkeyproof.undo.log import Undo

MOST_BITS = 10_000
PUT_BACK_FILE = "monkeyproof.faults.models:put_back_file"


def _embedded(rng: np.random.Generator, target: TargetFile, intensity: float) -> Mapping[str, Json] | None:  # noqa: ARG001
    return {} if target.stack else None


@fault(
    needs=(Registry, ArtifactFiles),
    evidence="the registry gives bytes with another digest",
    undo="the same bits are flipped back, and the digest is what it was",
    healing="none while nobody loads it; whoever does has to compare digests",
    draw=_embedded,
)
def flip_bits(
    version: str = "",
    bits: int = 1,
    where: str = "any",
) -> dict[str, Json]:
    """Flip bits in the stored artifact of a version.

    Almost nothing that loads a model notices. The embedded target does: its replicas compare digests.

    Args:
        version: which; "" is the champion.
        bits: how many, each once, at most 10,000.
        where: ``any`` bit of the file, or the highest ``exponent`` bit of a weight each.
    """
    check_count("bits", bits, 1, MOST_BITS)
    registry, chosen, path = _place(version)
    before = digest_of(path)
    flips = choose_bits(path, bits, where, current().rng("models.flip_bits"))
    places = [int(bit) for bit in flips.bits]
    after, old = digest_with_flips(path, places), old_bytes(path, places)

    def evidence(_: object) -> Evidence | None:
        if digest_of(path) != after or digest_given(registry, chosen) != after:
            return None
        return Evidence(
            f"{bits} bit{'s' if bits > 1 else ''} of version {chosen}'s artifact flipped: the registry gives "
            f"{after[:12]}..., and gave {before[:12]}...",
            {"version": chosen, "before": before, "after": after, "bits": places[:20]},
        )

    return inject(
        Injection(
            fault="models.flip_bits",
            subject=f"version {chosen}",
            parameters={"version": chosen, "bits": bits, "where": where},
            apply=lambda: flip_in_file(path, flips),
            evidence=evidence,
            undo=Undo(
                "monkeyproof.faults.models:put_back_bits",
                {"path": str(path), "bits": places, "old": old.hex(), "before": before, "after": after},
            ),
            prior={"digest": before},
            why_gone=_unless(path, after),
        )
    )


@fault(
    needs=(Registry, ArtifactFiles),
    evidence="the registry gives the shorter file",
    undo="the whole file is put back from a copy, and the digest is what it was",
    healing="none while nobody loads it; another version, or its backup",
    draw=_embedded,
)
def truncate(
    version: str = "",
    keep_share: float = 0.5,
) -> dict[str, Json]:
    """Cut the stored artifact of a version off, as an upload that broke.

    Args:
        version: which; "" is the champion.
        keep_share: how much of it is left, in [0, 1).
    """
    check_number("keep_share", keep_share)
    if not 0 <= keep_share < 1:
        raise UsageError(f"keep_share: {keep_share} is not in [0, 1); 0.5 leaves the first half")
    registry, chosen, path = _place(version)
    kept, size = keep(path), path.stat().st_size
    left_bytes = int(size * keep_share)
    after = _digest_of_beginning(path, left_bytes)

    def evidence(_: object) -> Evidence | None:
        if path.stat().st_size != left_bytes or digest_given(registry, chosen) != after:
            return None
        return Evidence(
            f"the registry gives {left_bytes} of {size} bytes of version {chosen}'s artifact",
            {"version": chosen, "before": kept.digest, "after": after, "bytes": left_bytes},
        )

    return _damage(
        "models.truncate",
        chosen,
        {"keep_share": float(keep_share)},
        kept,
        after,
        lambda: os.truncate(path, left_bytes),
        evidence,
    )


@fault(
    needs=(Registry, ArtifactFiles),
    evidence="the registry has no such file to give",
    undo="the file is put back from a copy, and the digest is what it was",
    healing="none while nobody loads it; another version, or its backup",
    draw=_embedded,
)
def remove(
    version: str = "",
) -> dict[str, Json]:
    """Take the stored artifact of a version away; the registry goes on listing the version.

    Args:
        version: which; "" is the champion.
    """
    registry, chosen, path = _place(version)
    kept = keep(path)

    def evidence(_: object) -> Evidence | None:
        if path.exists():
            return None
        try:
            digest_given(registry, chosen)
        except TargetError as error:
            return Evidence(
                f"the registry cannot give version {chosen}'s artifact ({error})",
                {"version": chosen, "before": kept.digest, "after": MISSING},
            )
        return None

    return _damage("models.remove", chosen, {}, kept, MISSING, path.unlink, evidence)


def _damage(
    name: str,
    version: str,
    parameters: Mapping[str, Json],
    kept: Kept,
    after: str,
    act: Callable[[], object],
    evidence: Callable[[object], Evidence | None],
) -> dict[str, Json]:
    """Inject: what is needed to put the file back is saved, then it is damaged."""

    def apply() -> None:
        kept.save()
        act()

    return inject(
        Injection(
            fault=name,
            subject=f"version {version}",
            parameters={"version": version, **parameters},
            apply=apply,
            evidence=evidence,
            undo=Undo(PUT_BACK_FILE, kept.arguments(after)),
            prior={"digest": kept.digest},
            why_gone=_unless(kept.path, after),
        )
    )


def _place(version: str) -> tuple[Registry, str, Path]:
    target = current().target
    registry, files = require(target, Registry), require(target, ArtifactFiles)
    chosen = version_named(registry.versions(), str(version) or registry.champion()).version
    path = files.file_of(chosen)
    if not path.is_file():
        raise TargetError(f"{path}: version {chosen} has no artifact there already")
    return registry, chosen, path


def _unless(path: Path, after: str) -> Callable[[], str]:
    return lambda: "" if digest_now(path) == after else f"{path.name} is not as the fault left it"


def _digest_of_beginning(path: Path, count: int) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.sha256(file.read(count)).hexdigest()
