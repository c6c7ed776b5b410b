"""Publishes and promotes a version that should never be released: damaged, or trained for another purpose."""

from __future__ import annotations

import shutil
from pathlib import Path

from monkeyproof.errors import UsageError
from monkeyproof.faults.models.artifacts import MOST_BITS
from monkeyproof.faults.models.formats import choose_bits
from monkeyproof.faults.support.bitflips import flip_in_file
from monkeyproof.faults.support.champion import downloaded, inject_release, version_named
from monkeyproof.faults.support.checks import check_count
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import current
from monkeyproof.targets.port import OtherModels, Publishing, Registry, Replicas, require
from monkeyproof.types import Json

SCHEMAS = ("other_columns", "fewer_columns")
CLAIMED = {"accuracy": "0.9990", "n": "2000", "quality": "release"}
"""Tags of a wrong model, as its publisher would give them after a validation on the wrong data."""


@fault(
    needs=(Registry, Replicas, Publishing),
    evidence="the registry gives the damaged bytes as champion, with a digest that fits, and a replica serves it",
    undo="the old champion is restored, unless another program chose another; the damaged version is deleted",
    healing="ask for known answers, and roll back: digests do not show it",
    draw=lambda rng, target, intensity: {} if target.stack else None,  # noqa: ARG005
)
def promote_damaged_copy(
    bits: int = 32,
    where: str = "exponent",
) -> dict[str, Json]:
    """Publish a copy of the champion with flipped bits, as if they had flipped before the digest was taken.

    The registry's digest is that of the damaged bytes, so a comparison of digests finds nothing.

    Args:
        bits: how many. A single one seldom changes an answer.
        where: ``any`` bit of the file, or the highest ``exponent`` bit of a weight each.
    """
    check_count("bits", bits, 1, MOST_BITS)
    context = current()
    registry = require(context.target, Registry)
    champion = version_named(registry.versions(), registry.champion())

    def model(folder: Path) -> Path:
        with downloaded(registry, champion.version) as path:
            damaged = path.rename(folder / path.name)
        flips = choose_bits(damaged, bits, where, context.rng("models.promote_damaged_copy"))
        flip_in_file(damaged, flips)
        return damaged

    tags = {name: value for name, value in champion.tags.items() if name != "sha256"}
    return inject_release(
        "models.promote_damaged_copy",
        model,
        tags,
        extra_parameters={"bits": bits, "where": where, "copy_of": champion.version},
    )


@fault(
    needs=(Registry, Replicas, Publishing, OtherModels),
    evidence="the registry gives its bytes as champion, and a replica serves it",
    undo="the old champion is restored, unless another program chose another; the wrong version is deleted",
    healing="ask for known answers, and roll back: its accuracy tag is better than all others'",
    draw=lambda rng, target, intensity: {} if target.stack else None,  # noqa: ARG005
)
def deploy_wrong_version(
    model: str = "",
) -> dict[str, Json]:
    """Publish and promote a model that was trained for another purpose, at which it is very good.

    Args:
        model: path of a model file; with "" the target trains one.
    """
    return _deploy("models.deploy_wrong_version", "other_purpose", model, {})


@fault(
    needs=(Registry, Replicas, Publishing, OtherModels),
    evidence="the registry gives its bytes as champion; a replica serves it, or fails to load it",
    undo="the old champion is restored, unless another program chose another; the wrong version is deleted",
    healing="fewer_columns: none while replicas refuse it; other_columns: ask for known answers, and roll back",
    draw=lambda rng, target, intensity: (  # noqa: ARG005
        {"schema": SCHEMAS[int(rng.integers(len(SCHEMAS)))]} if target.stack else None
    ),
)
def deploy_wrong_schema(
    schema: str = "other_columns",
    model: str = "",
) -> dict[str, Json]:
    """Publish and promote a model that was trained with other columns than requests have.

    Args:
        schema: ``other_columns``: as many in another order, which only the answers show; or ``fewer_columns``,
            which every request shows.
        model: path of a model file; with "" the target trains one.
    """
    if schema not in SCHEMAS:
        raise UsageError(f"schema: {schema!r} is not one of {', '.join(SCHEMAS)}")
    return _deploy("models.deploy_wrong_schema", schema, model, {"schema": schema})


def _deploy(name: str, kind: str, given: str, extra_parameters: dict[str, Json]) -> dict[str, Json]:
    target = current().target
    require(target, Registry)
    others = None if given else require(target, OtherModels)
    if given and not Path(given).is_file():
        raise UsageError(f"model: {given} is no file")

    def model(folder: Path) -> Path:
        if others is not None:
            return others.make(kind, folder)
        return Path(shutil.copy(given, folder / "model.pkl"))

    return inject_release(
        name,
        model,
        CLAIMED,
        refused=kind == "fewer_columns",
        extra_parameters={**extra_parameters, "model": given},
    )
