"""What faults of models and of the registry share: choosing, publishing and promoting a version."""

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
"""The subject of faults that choose a champion."""
SCRAPE_TIMEOUT_S = 1.0
FOLLOWED_WITHIN_S = 10.0


def version_named(versions: Sequence[ModelVersion], name: str) -> ModelVersion:
    """The version of that name. Raises UsageError if there is none."""
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
    """The digest that the publisher of a version tagged it with; "" if there is none."""
    return next((one.sha256 for one in versions if one.version == version), "")


@contextmanager
def downloaded(registry: Registry, version: str) -> Iterator[Path]:
    """The version's model file as the registry gives it at this moment; deleted at the end of the block."""
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
    """A replica's metrics without labels, by name; none if it does not answer."""
    import httpx
    from prometheus_client.parser import text_string_to_metric_families

    with contextlib.suppress(httpx.HTTPError, ValueError):
        answer = httpx.get(replica.metrics_url, timeout=SCRAPE_TIMEOUT_S, trust_env=False)
        families = text_string_to_metric_families(answer.text)
        return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}
    return {}


def serving(replicas: Replicas, version: str) -> tuple[list[str], list[str]]:
    """Names of the replicas that report that they serve a version, and of the others."""
    served = {one.name: f"{metrics_of(one).get('replica_model_version', 0):.0f}" for one in replicas.list()}
    yes = [name for name, found in served.items() if found == version]
    return yes, [name for name in served if name not in yes]


def inject_promotion(
    fault: str,
    chosen: ModelVersion,
    *,
    undo: str,
    apply: Callable[[], object] | None = None,
    extra_parameters: Mapping[str, Json] | None = None,
    undo_arguments: Mapping[str, Json] | None = None,
) -> dict[str, Json]:
    """Inject: make a version champion; the registry and a replica that serves it prove it.

    Args:
        undo: a function of ``(target, promoted, previous, sha256, **undo_arguments)``.
        apply: what to do; None: set the alias and nothing else.
    """
    context = current()
    registry, replicas = require(context.target, Registry), require(context.target, Replicas)
    previous = registry.champion()
    sha256 = digest_tag(registry.versions(), previous)

    named = Latched(lambda: registry.champion() == chosen.version)

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
                **(extra_parameters or {}),
            },
            apply=apply or (lambda: registry.set_champion(chosen.version)),
            evidence=evidence,
            undo=Undo(
                undo,
                {
                    "promoted": chosen.version,
                    "previous": previous,
                    "sha256": sha256,
                    **(undo_arguments or {}),
                },
            ),
            evidence_within_s=FOLLOWED_WITHIN_S,
            prior={"champion": previous, "sha256": sha256},
            why_ended=why_not_champion(registry, chosen.version),
        )
    )


class Latched:
    """Whether a condition held at this call or an earlier one: a healer may end it between two calls."""

    def __init__(self, condition: Callable[[], bool]) -> None:
        self._condition = condition
        self._held = False

    def __call__(self) -> bool:
        self._held = self._held or self._condition()
        return self._held


def why_not_champion(registry: Registry, version: str) -> Callable[[], str]:
    """A check for ``Injection.why_ended``: whether another version is champion."""

    def why() -> str:
        now = registry.champion()
        return "" if now == version else f"the champion is version {now}, and was {version}"

    return why


def inject_release(
    fault: str,
    model: Callable[[Path], Path],
    tags: Mapping[str, str],
    *,
    promote: bool = True,
    refused: bool = False,
    extra_parameters: Mapping[str, Json] | None = None,
) -> dict[str, Json]:
    """Inject: publish a model as a new version with its own digest, and make it champion.

    Args:
        model: makes the model in a folder, before the target is changed; returns its file.
        tags: the tags that its publisher gives it.
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
        release = _Release(registry, publishing, replicas, previous, mark, sha256, accept_refusals=refused)
        return inject(
            Injection(
                fault=fault,
                subject=CHAMPION if promote else "registry",
                parameters={"previous": previous, "promote": promote, **(extra_parameters or {})},
                apply=lambda: release.publish(path, {**tags, "sha256": sha256}),
                evidence=release.evidence,
                undo=Undo(f"{__name__}:withdraw_release", {"mark": mark, "previous": previous}),
                evidence_within_s=FOLLOWED_WITHIN_S,
                prior={"champion": previous},
                why_ended=release.why_ended,
            )
        )


class _Release:
    """One version that is published, and promoted where there are replicas to serve it."""

    def __init__(
        self,
        registry: Registry,
        publishing: Publishing,
        replicas: Replicas | None,
        previous: str,
        mark: str,
        sha256: str,
        *,
        accept_refusals: bool,
    ) -> None:
        """``replicas`` None: it is not promoted. ``accept_refusals``: a replica that cannot load it is a proof."""
        self._registry, self._publishing, self._replicas = registry, publishing, replicas
        self._previous, self._mark, self._sha256 = previous, mark, sha256
        self._accept_refusals = accept_refusals
        self._errors_before = _registry_errors(replicas)
        self._version = ""
        self._is_given = Latched(lambda: digest_given(registry, self._version) == sha256)
        self._is_champion = Latched(lambda: registry.champion() == self._version)

    def publish(self, path: Path, tags: Mapping[str, str]) -> None:
        self._version = self._publishing.publish(path, self._mark, tags)
        if self._replicas is not None:
            self._registry.set_champion(self._version)

    def evidence(self, _: object) -> Evidence | None:
        # The champion first: it is another one as soon as a healer rolls back.
        if self._replicas is not None and not self._is_champion():
            return None
        if not self._is_given():
            return None
        data: dict[str, Json] = {"version": self._version, "previous": self._previous, "sha256": self._sha256}
        words = f"version {self._version} is published with the digest {self._sha256[:12]}..."
        if self._replicas is None:
            return Evidence(words, data)
        yes, _others = serving(self._replicas, self._version)
        no = self._refusing(self._replicas) if self._accept_refusals else []
        if not yes and not no:
            return None
        words += f" and champion instead of {self._previous}; "
        words += f"{', '.join(yes)} serve{'s' if len(yes) == 1 else ''} it" if yes else ""
        words += f"{', '.join(no)} cannot load it" if no and not yes else ""
        return Evidence(words, {**data, "serving": yes, "cannot_load": no})

    def why_ended(self) -> str:
        if self._replicas is not None:
            return why_not_champion(self._registry, self._version)()
        return "" if self._publishing.published(self._mark) else f"version {self._version} was deleted"

    def _refusing(self, replicas: Replicas) -> list[str]:
        """Replicas that have failed to follow the registry since the release."""
        now = _registry_errors(replicas)
        return [name for name, count in now.items() if count > self._errors_before.get(name, count)]


def withdraw_release(target: Target, mark: str, previous: str) -> str:
    """Undo of ``inject_release``: deletes the version with its file, and restores the champion. Idempotent.

    A champion that another program has chosen since stays.
    """
    registry, publishing = require(target, Registry), require(target, Publishing)
    ours = publishing.published(mark)
    if not ours:
        # A file may have been uploaded without a version being made of it.
        publishing.withdraw(mark)
        return "the version that was published does not exist any more"
    now = registry.champion()
    if now in ours:
        # The alias first: with a version, the registry deletes every alias of it.
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
