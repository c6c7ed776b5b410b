"""What faults of models and of the registry have in common: which version, who serves it, and publishing one."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from monkeyproof.errors import Refusal, TargetError, UsageError
from monkeyproof.faults.support.bitflips import digest_of
from monkeyproof.injection.inject import Injection, current, inject
from monkeyproof.targets.port import ModelVersion, Publishing, Registry, Replica, Replicas, Target, require
from monkeyproof.types import Evidence, Json
from monkeyproof.undo.log import Undo

CHAMPION = "champion"
"""Subject of the faults that choose one."""
SCRAPE_TIMEOUT_S = 1.0
FOLLOWED_WITHIN_S = 10.0


def version_named(versions: Sequence[ModelVersion], name: str) -> ModelVersion:
    """Raises: UsageError: there is none of that name."""
    found = next((one for one in versions if one.version == str(name)), None)  # YAML reads 3 as a number.
    if found is None:
        known = ", ".join(one.version for one in versions) or "none"
        raise UsageError(f"version: the registry has no version {name!r}; it has {known}")
    return found


def worst_but(versions: Sequence[ModelVersion], champion: str) -> ModelVersion:
    """The version with the lowest accuracy tag, the champion's own left aside.

    Raises:
        Refusal: none is known to be worse.
    """
    tagged = [(one.accuracy, one) for one in versions if one.version != champion and one.accuracy is not None]
    if not tagged:
        raise Refusal(
            "no version but the champion has an accuracy tag, so none is known to be worse", "name a version"
        )
    return min(tagged, key=lambda pair: pair[0])[1]


def digest_tag(versions: Sequence[ModelVersion], version: str) -> str:
    """What the publisher of a version said of its bytes; "" if nothing."""
    return next((one.sha256 for one in versions if one.version == version), "")


@contextmanager
def downloaded(registry: Registry, version: str) -> Iterator[Path]:
    """The version's model file, as the registry gives it at this moment. Gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mp-version-") as folder:
        yield registry.download(version, Path(folder))


def digest_given(registry: Registry, version: str) -> str:
    """The digest of what the registry gives for a version at this moment.

    Raises:
        TargetError: it gives nothing.
    """
    with downloaded(registry, version) as path:
        return digest_of(path)


def metrics_of(replica: Replica) -> Mapping[str, float]:
    """A replica's numbers, by name; none if it says nothing."""
    import httpx
    from prometheus_client.parser import text_string_to_metric_families

    with contextlib.suppress(httpx.HTTPError, ValueError):
        answer = httpx.get(replica.metrics_url, timeout=SCRAPE_TIMEOUT_S, trust_env=False)
        families = text_string_to_metric_families(answer.text)
        return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}
    return {}


def serving(replicas: Replicas, version: str) -> tuple[list[str], list[str]]:
    """Names of the replicas that say that they serve a version, and of the others."""
    served = {one.name: f"{metrics_of(one).get('replica_model_version', 0):.0f}" for one in replicas.list()}
    yes = [name for name, found in served.items() if found == version]
    return yes, [name for name in served if name not in yes]


def promotion(
    fault: str,
    chosen: ModelVersion,
    *,
    undo: str,
    apply: Callable[[], object] | None = None,
    more: Mapping[str, Json] | None = None,
    more_of_undo: Mapping[str, Json] | None = None,
) -> dict[str, Json]:
    """Inject: a version becomes champion, proven by the registry and by a replica that serves it.

    Args:
        undo: a function of ``(target, promoted, previous, sha256, **more_of_undo)``.
        apply: what is done; None: no more than that.
    """
    context = current()
    registry, replicas = require(context.target, Registry), require(context.target, Replicas)
    previous = registry.champion()
    sha256 = digest_tag(registry.versions(), previous)

    named = Once(lambda: registry.champion() == chosen.version)

    def evidence(_: object) -> Evidence | None:
        if not named():
            return None
        yes, _others = serving(replicas, chosen.version)
        if not yes:
            return None
        accuracy = f" (accuracy {chosen.accuracy:.3f})" if chosen.accuracy is not None else ""
        return Evidence(
            f"the champion is version {chosen.version}{accuracy} instead of {previous}; {', '.join(yes)} "
            f"serve{'s' if len(yes) == 1 else ''} it",
            {"champion": chosen.version, "previous": previous, "accuracy": chosen.accuracy, "serving": yes},
        )

    return inject(
        Injection(
            fault=fault,
            subject=CHAMPION,
            parameters={
                "version": chosen.version,
                "previous": previous,
                "accuracy": chosen.accuracy,
                **(more or {}),
            },
            apply=apply or (lambda: registry.set_champion(chosen.version)),
            evidence=evidence,
            undo=Undo(
                undo,
                {
                    "promoted": chosen.version,
                    "previous": previous,
                    "sha256": sha256,
                    **(more_of_undo or {}),
                },
            ),
            evidence_within_s=FOLLOWED_WITHIN_S,
            prior={"champion": previous, "sha256": sha256},
            why_gone=why_not_champion(registry, chosen.version),
        )
    )


class Once:
    """Whether something was seen, at this look or an earlier one: a healer may take it away between two looks."""

    def __init__(self, look: Callable[[], bool]) -> None:
        self._look = look
        self._seen = False

    def __call__(self) -> bool:
        self._seen = self._seen or self._look()
        return self._seen


def why_not_champion(registry: Registry, version: str) -> Callable[[], str]:
    def why() -> str:
        now = registry.champion()
        return "" if now == version else f"the champion is version {now}, and was {version}"

    return why


def release(
    fault: str,
    model: Callable[[Path], Path],
    tags: Mapping[str, str],
    *,
    promote: bool = True,
    refused: bool = False,
    more: Mapping[str, Json] | None = None,
) -> dict[str, Json]:
    """Inject: a model is published as a new version, with its own digest, and becomes champion.

    Args:
        model: makes it in a folder, before anything is done to the target; returns its file.
        tags: what its publisher says of it.
        promote: whether it becomes champion.
        refused: whether replicas that refuse to load it prove it as well as those that serve it.

    Raises:
        Refusal: the target does not offer it.
    """
    context = current()
    target = context.target
    registry, publishing = require(target, Registry), require(target, Publishing)
    replicas = require(target, Replicas) if promote else None
    previous, mark = registry.champion(), uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="mp-release-") as folder:
        # A plan publishes nothing, so it needs no model.
        path = model(Path(folder)) if context.planned is None else Path(folder)
        sha256 = digest_of(path) if path.is_file() else ""
        errors = _registry_errors(replicas)
        version = ""
        given = Once(lambda: digest_given(registry, version) == sha256)
        named = Once(lambda: registry.champion() == version)

        def apply() -> None:
            nonlocal version
            version = publishing.publish(path, mark, {**tags, "sha256": sha256})
            if promote:
                registry.set_champion(version)

        def evidence(_: object) -> Evidence | None:
            # First: it is over as soon as somebody rolls back.
            if promote and not named():
                return None
            if not given():
                return None
            data: dict[str, Json] = {"version": version, "previous": previous, "sha256": sha256}
            words = f"version {version} is published with the digest {sha256[:12]}..."
            if replicas is None:
                return Evidence(words, data)
            yes, _ = serving(replicas, version)
            now = _registry_errors(replicas)
            no = [name for name, count in now.items() if count > errors.get(name, count)] if refused else []
            if not yes and not no:
                return None
            words += f" and champion instead of {previous}; "
            words += f"{', '.join(yes)} serve{'s' if len(yes) == 1 else ''} it" if yes else ""
            words += f"{', '.join(no)} cannot load it" if no and not yes else ""
            return Evidence(words, {**data, "serving": yes, "cannot_load": no})

        def why_gone() -> str:
            if promote:
                return why_not_champion(registry, version)()
            return "" if publishing.published(mark) else f"version {version} was deleted"

        return inject(
            Injection(
                fault=fault,
                subject=CHAMPION if promote else "registry",
                parameters={"previous": previous, "promote": promote, **(more or {})},
                apply=apply,
                evidence=evidence,
                undo=Undo("monkeyproof.faults.support.champion:withdraw", {"mark": mark, "previous": previous}),
                evidence_within_s=FOLLOWED_WITHIN_S,
                prior={"champion": previous},
                why_gone=why_gone,
            )
        )


def withdraw(target: Target, mark: str, previous: str) -> str:
    """Undo of ``release``: the version is deleted with its file, and is champion no more. Idempotent.

    A champion that somebody else chose since stays.
    """
    registry, publishing = require(target, Registry), require(target, Publishing)
    ours = publishing.published(mark)
    if not ours:
        # A file may have been uploaded of which no version was made any more.
        publishing.withdraw(mark)
        return "the version that was published is gone already"
    now = registry.champion()
    if now in ours:
        # First: with a version, the registry deletes every alias of it.
        registry.set_champion(previous)
        now = registry.champion()
        if now != previous:
            raise TargetError(f"the champion should be version {previous} again, and is {now}")
    publishing.withdraw(mark)
    if left := publishing.published(mark):
        raise TargetError(f"version {', '.join(left)} should be deleted, and is still there")
    return f"version {', '.join(ours)} is deleted; the champion is version {now}"


def _registry_errors(replicas: Replicas | None) -> dict[str, float]:
    """How often each replica failed to follow the registry so far."""
    if replicas is None:
        return {}
    found = {one.name: metrics_of(one).get("replica_registry_errors_total") for one in replicas.list()}
    return {name: count for name, count in found.items() if count is not None}
