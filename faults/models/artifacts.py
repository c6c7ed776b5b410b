"""Damage to the stored artifact of a version: flipped bits, a missing end, a missing file.

Replicas that serve the version have it in memory and notice nothing. The next process that loads it does.
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
    FileBackup,
    back_up,
    digest_now,
    digest_with_flips,
    old_bytes,
)
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import Injection, current, inject
from monkeyproof.targets.port import ArtifactFiles, Registry, require
from monkeyproof.types import Evidence, Json
from monkeyproof.undo.log import Undo

MOST_BITS = 10_000
RESTORE_FILE = "monkeyproof.faults.support.file_restore:restore_file"


def _embedded(rng: np.random.Generator, target: TargetFile, intensity: float) -> Mapping[str, Json] | None:  # noqa: ARG001
    return {} if target.stack else None


@fault(
    needs=(Registry, ArtifactFiles),
    evidence="the registry gives bytes with another digest",
    undo="the same bits are flipped back; the digest shows it",
    healing="none until a replica loads it, which has to compare digests",
    draw=_embedded,
)
def flip_bits(
    version: str = "",
    bits: int = 1,
    where: str = "any",
) -> dict[str, Json]:
    """Flip bits in the stored artifact of a version.

    Almost no program that loads a model notices. The embedded target does: its replicas compare digests.

    Args:
        version: the version; "" is the champion.
        bits: how many different bits, at most 10,000.
        where: ``any`` bit of the file, or the highest ``exponent`` bit of a weight each.
    """
    check_count("bits", bits, 1, MOST_BITS)
    registry, chosen, path = _artifact(version)
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
                "monkeyproof.faults.support.file_restore:restore_bits",
                {"path": str(path), "bits": places, "old": old.hex(), "before": before, "after": after},
            ),
            prior={"digest": before},
            why_ended=_why_changed(path, after),
        )
    )


@fault(
    needs=(Registry, ArtifactFiles),
    evidence="the registry gives the shorter file",
    undo="the whole file is restored from a backup; the digest shows it",
    healing="none until a replica loads it; then another version, or its backup",
    draw=_embedded,
)
def truncate(
    version: str = "",
    keep_share: float = 0.5,
) -> dict[str, Json]:
    """Truncate the stored artifact of a version, as a broken upload does.

    Args:
        version: the version; "" is the champion.
        keep_share: share of the file that is left, in [0, 1).
    """
    check_number("keep_share", keep_share)
    if not 0 <= keep_share < 1:
        raise UsageError(f"keep_share: {keep_share} is not in [0, 1); 0.5 leaves the first half")
    registry, chosen, path = _artifact(version)
    backup, size = back_up(path), path.stat().st_size
    left_bytes = int(size * keep_share)
    after = _digest_of_beginning(path, left_bytes)

    def evidence(_: object) -> Evidence | None:
        if path.stat().st_size != left_bytes or digest_given(registry, chosen) != after:
            return None
        return Evidence(
            f"the registry gives {left_bytes} of {size} bytes of version {chosen}'s artifact",
            {"version": chosen, "before": backup.digest, "after": after, "bytes": left_bytes},
        )

    return _damage(
        "models.truncate",
        chosen,
        {"keep_share": float(keep_share)},
        backup,
        after,
        lambda: os.truncate(path, left_bytes),
        evidence,
    )


@fault(
    needs=(Registry, ArtifactFiles),
    evidence="the registry has no such file to give",
    undo="the file is restored from a backup; the digest shows it",
    healing="none until a replica loads it; then another version, or its backup",
    draw=_embedded,
)
def remove(
    version: str = "",
) -> dict[str, Json]:
    """Delete the stored artifact of a version; the registry still lists the version.

    Args:
        version: the version; "" is the champion.
    """
    registry, chosen, path = _artifact(version)
    backup = back_up(path)

    def evidence(_: object) -> Evidence | None:
        if path.exists():
            return None
        try:
            digest_given(registry, chosen)
        except TargetError as error:
            return Evidence(
                f"the registry cannot give version {chosen}'s artifact ({error})",
                {"version": chosen, "before": backup.digest, "after": MISSING},
            )
        return None

    return _damage("models.remove", chosen, {}, backup, MISSING, path.unlink, evidence)


def _damage(
    name: str,
    version: str,
    parameters: Mapping[str, Json],
    backup: FileBackup,
    after: str,
    act: Callable[[], object],
    evidence: Callable[[object], Evidence | None],
) -> dict[str, Json]:
    """Inject: back the file up, then damage it."""

    def apply() -> None:
        backup.save()
        act()

    return inject(
        Injection(
            fault=name,
            subject=f"version {version}",
            parameters={"version": version, **parameters},
            apply=apply,
            evidence=evidence,
            undo=Undo(RESTORE_FILE, backup.arguments(after)),
            prior={"digest": backup.digest},
            why_ended=_why_changed(backup.path, after),
        )
    )


def _artifact(version: str) -> tuple[Registry, str, Path]:
    target = current().target
    registry, files = require(target, Registry), require(target, ArtifactFiles)
    chosen = version_named(registry.versions(), str(version) or registry.champion()).version
    path = files.file_of(chosen)
    if not path.is_file():
        raise TargetError(f"{path}: version {chosen} has no artifact there")
    return registry, chosen, path


def _why_changed(path: Path, after: str) -> Callable[[], str]:
    """A check for ``Injection.why_ended``: whether the file is not as the fault left it."""
    return lambda: "" if digest_now(path) == after else f"{path.name} is not as the fault left it"


def _digest_of_beginning(path: Path, count: int) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.sha256(file.read(count)).hexdigest()
