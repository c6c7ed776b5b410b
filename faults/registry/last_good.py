"""What a rollback falls back on: the last good version is bad itself, or there is a copy of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from monkeyproof.errors import Refusal, TargetError
from monkeyproof.faults.support.bitflips import digest_of
from monkeyproof.faults.support.champion import (
    digest_given,
    digest_tag,
    downloaded,
    release,
    version_named,
    worst_but,
)
from monkeyproof.faults.support.file_restore import keep, put_back_file, write_whole
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import Injection, current, inject
from monkeyproof.targets.port import ArtifactFiles, Publishing, Registry, Target, require
from monkeyproof.types import Evidence, Json
from monkeyproof.undo.log import Undo


@fault(
    needs=(Registry, Publishing, ArtifactFiles),
    evidence="the registry gives other bytes for it, and names their digest",
    undo="its bytes and its digest are put back, unless somebody else changed them since",
    healing="ask a version for known answers before it is trusted; else call a person",
)
def spoil_last_good(
    version: str = "",
) -> dict[str, Json]:
    """Have a version be bad behind its good name: its bytes are a worse model's, and its digest is theirs.

    All that a registry tells of it stays good: its accuracy, its tags, a digest that fits. Replicas that serve it
    go on with what they have loaded.

    Args:
        version: which; "" is the champion, to which the next rollback leads.
    """
    target = current().target
    registry, publishing = require(target, Registry), require(target, Publishing)
    versions, champion = registry.versions(), registry.champion()
    chosen = version_named(versions, version or champion)
    worse = worst_but(versions, chosen.version)
    if not chosen.sha256:
        raise Refusal(f"version {chosen.version} has no digest tag, so nothing vouches for it", "name another")
    path = require(target, ArtifactFiles).file_of(chosen.version)
    kept = keep(path)
    with tempfile.TemporaryDirectory(prefix="mp-worse-") as folder:
        bad = registry.download(worse.version, Path(folder))
        after = digest_of(bad)

        def apply() -> None:
            kept.save()
            write_whole(path, bad.read_bytes())
            publishing.set_tag(chosen.version, "sha256", after)

        def evidence(_: object) -> Evidence | None:
            tag = digest_tag(registry.versions(), chosen.version)
            if tag != after or digest_given(registry, chosen.version) != after:
                return None
            return Evidence(
                f"the registry gives version {worse.version}'s bytes for version {chosen.version}, and vouches "
                f"for them ({kept.digest[:12]}... became {after[:12]}...)",
                {"version": chosen.version, "before": kept.digest, "after": after},
            )

        return inject(
            Injection(
                fault="registry.spoil_last_good",
                subject=f"version {chosen.version}",
                # Not "version": that is what the looks after a trial take for a promoted one.
                parameters={"spoilt": chosen.version, "bytes_of": worse.version},
                apply=apply,
                evidence=evidence,
                undo=Undo(
                    "monkeyproof.faults.registry:unspoil",
                    {
                        "version": chosen.version,
                        "tag": chosen.sha256,
                        **kept.arguments(after),
                    },
                ),
                prior={"sha256": chosen.sha256, "digest": kept.digest},
                why_gone=lambda: "" if digest_of(path) == after else "its bytes are not those that were put there",
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

    Beside other faults it is a place to which a rollback can go.

    Args:
        version: of which; "" is the champion.
        promote: whether the copy becomes champion.
    """
    registry = require(current().target, Registry)
    chosen = version_named(registry.versions(), version or registry.champion())
    tags = {name: value for name, value in chosen.tags.items() if name != "sha256"}

    def model(folder: Path) -> Path:
        with downloaded(registry, chosen.version) as path:
            return path.rename(folder / path.name)

    return release(
        "registry.publish_copy", model, tags, promote=promote, more={"version": "", "copy_of": chosen.version}
    )


def unspoil(target: Target, version: str, tag: str, path: str, kept: str, before: str, after: str) -> str:
    """Undo of ``spoil_last_good``: the bytes first, then what vouches for them. Idempotent."""
    registry, publishing = require(target, Registry), require(target, Publishing)
    words = put_back_file(target, path=path, kept=kept, before=before, after=after)
    now = digest_tag(registry.versions(), version)
    if now == after != tag:
        publishing.set_tag(version, "sha256", tag)
        now = digest_tag(registry.versions(), version)
        if now != tag:
            raise TargetError(f"version {version} should have the digest {tag[:12]}..., and has {now[:12]}...")
    elif now != tag:
        words += f"; its digest tag is {now[:12]}... by now, somebody else's: left as it is"
    return words
