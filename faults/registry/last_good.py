"""Faults of the version that a rollback leads to: it is bad itself, or there is a copy of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from monkeyproof.errors import Refusal, TargetError
from monkeyproof.faults.support.bitflips import digest_of
from monkeyproof.faults.support.champion import (
    digest_given,
    digest_tag,
    downloaded,
    inject_release,
    version_named,
    worst_but,
)
from monkeyproof.faults.support.file_restore import back_up, restore_file, write_whole
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import Injection, current, inject
from monkeyproof.targets.port import ArtifactFiles, Publishing, Registry, Target, require
from monkeyproof.types import Evidence, Json
from monkeyproof.undo.log import Undo


@fault(
    former_names=("spoil_last_good",),
    needs=(Registry, Publishing, ArtifactFiles),
    evidence="the registry gives other bytes for it, with a digest tag that fits them",
    undo="its bytes and its digest tag are restored, unless another program changed them since",
    healing="test a version with known answers before trusting it; else call a person",
)
def corrupt_last_good(
    version: str = "",
) -> dict[str, Json]:
    """Replace a version's bytes by a worse model's, with a digest tag that fits: the last good version is bad.

    All metadata in the registry stays good: its accuracy, its tags, a digest that fits. Replicas that serve it
    go on with what they have loaded.

    Args:
        version: the version; "" is the champion, to which the next rollback leads.
    """
    target = current().target
    registry, publishing = require(target, Registry), require(target, Publishing)
    versions, champion = registry.versions(), registry.champion()
    chosen = version_named(versions, version or champion)
    worse = worst_but(versions, chosen.version)
    if not chosen.sha256:
        raise Refusal(f"version {chosen.version} has no digest tag, so nothing vouches for it", "name another")
    path = require(target, ArtifactFiles).file_of(chosen.version)
    backup = back_up(path)
    with tempfile.TemporaryDirectory(prefix="mp-worse-") as folder:
        bad = registry.download(worse.version, Path(folder))
        after = digest_of(bad)

        def apply() -> None:
            backup.save()
            write_whole(path, bad.read_bytes())
            publishing.set_tag(chosen.version, "sha256", after)

        def evidence(_: object) -> Evidence | None:
            tag = digest_tag(registry.versions(), chosen.version)
            if tag != after or digest_given(registry, chosen.version) != after:
                return None
            return Evidence(
                f"the registry gives version {worse.version}'s bytes for version {chosen.version}, and vouches "
                f"for them ({backup.digest[:12]}... became {after[:12]}...)",
                {"version": chosen.version, "before": backup.digest, "after": after},
            )

        return inject(
            Injection(
                fault="registry.corrupt_last_good",
                subject=f"version {chosen.version}",
                # Not "version": the audit after a trial takes that for a promoted one.
                parameters={"spoilt": chosen.version, "bytes_of": worse.version},
                apply=apply,
                evidence=evidence,
                undo=Undo(
                    "monkeyproof.faults.registry:restore_last_good",
                    {
                        "version": chosen.version,
                        "tag": chosen.sha256,
                        **backup.arguments(after),
                    },
                ),
                prior={"sha256": chosen.sha256, "digest": backup.digest},
                why_ended=lambda: "" if digest_of(path) == after else "its bytes are not those that were written",
            )
        )


@fault(
    needs=(Registry, Publishing),
    evidence="the registry gives the same bytes for it; where it is promoted, a replica serves it",
    undo="the copy is deleted; the champion is the old one again",
    healing="none: a healer that acts on it is wrong",
)
def publish_copy(
    version: str = "",
    promote: bool = False,
) -> dict[str, Json]:
    """Publish a copy of a version, byte for byte, as the newest one: a release that changes nothing.

    Combined with other faults it is a version that a rollback can lead to.

    Args:
        version: the version to copy; "" is the champion.
        promote: whether the copy becomes champion.
    """
    registry = require(current().target, Registry)
    chosen = version_named(registry.versions(), version or registry.champion())
    tags = {name: value for name, value in chosen.tags.items() if name != "sha256"}

    def model(folder: Path) -> Path:
        with downloaded(registry, chosen.version) as path:
            return path.rename(folder / path.name)

    return inject_release(
        "registry.publish_copy",
        model,
        tags,
        promote=promote,
        extra_parameters={"version": "", "copy_of": chosen.version},
    )


def restore_last_good(
    target: Target, version: str, tag: str, path: str, kept: str, before: str, after: str
) -> str:
    """Undo of ``corrupt_last_good``: restores the bytes first, then the digest tag. Idempotent."""
    registry, publishing = require(target, Registry), require(target, Publishing)
    words = restore_file(target, path=path, kept=kept, before=before, after=after)
    now = digest_tag(registry.versions(), version)
    if now == after != tag:
        publishing.set_tag(version, "sha256", tag)
        now = digest_tag(registry.versions(), version)
        if now != tag:
            raise TargetError(f"version {version} should have the digest {tag[:12]}..., and has {now[:12]}...")
    elif now != tag:
        words += f"; its digest tag is {now[:12]}... by now, set by another program: left as it is"
    return words
