"""Corrupt data on their way into the feature store: faults of values, on the records that pass a link."""

from __future__ import annotations

import contextlib
import struct

from monkeyproof.errors import UsageError
from monkeyproof.faults.data.cells import Scale
from monkeyproof.faults.proxied import check_link, proxy_fault, seed_for
from monkeyproof.injection import current, inject, within_limit
from monkeyproof.repertoire import fault
from monkeyproof.targets.opening import first_golden_body
from monkeyproof.targets.port import Features, Links, Pipeline, Target, require
from monkeyproof.types import Evidence, Json

__all__ = ["scale_records"]

_READ_BACK_ENTITIES = 64


@fault(
    needs=(Links, Features),
    evidence="changed values stand in the feature store, bit for bit",
    undo="the link leaves records alone again; by itself when the lease runs out",
    healing="quarantine the stream, restore the last good snapshot",
    draw=lambda rng, target, intensity: (  # noqa: ARG005
        {"share": round(0.3 * intensity, 3)} if "source->pipeline" in target.links else None
    ),
)
def scale_records(
    link: str = "source->pipeline",
    share: float = 0.1,
    low: float = -10.0,
    high: float = 10.0,
) -> dict[str, Json]:
    """Multiply a share of the feature values of every record that passes ``link`` by a factor in ``[low, high]``.

    Its evidence is that changed records were written into the feature store: a changed value lies there; or, where
    a healer was quicker than the look, the pipeline says that it wrote their batch.
    """
    context = current()
    Scale(share=share, low=low, high=high)  # Checks them.
    check_link(context.target, link, protocol="http")
    links, features = require(context.target, Links), require(context.target, Features)
    if context.target.file.limits_in_force.rows_share is not None:
        rows_share = _rows_share(context.target, features, share)
        within_limit("rows_share", rows_share, "the share of rows corrupted", adds_up=True)
    seed = seed_for(f"data.scale_records/{link}")
    parameters = {"share": float(share), "low": float(low), "high": float(high), "seed": seed}

    pipeline = context.target.find(Pipeline)
    first_position: list[int] = []

    def evidence(toxic_id: str) -> Evidence | None:
        stats = links.stats(toxic_id)
        journal = stats["journal"]
        if not journal:
            return None
        # The journal keeps the newest only, so its first entry is remembered from the first look.
        first_position[:] = first_position or [min(cell["position"] for cell in journal)]
        found = _read_back(features, journal)
        if found is not None:
            seen = f"{found['entity']} has {found['new']!r} for {found['old']!r} in column {found['column']}"
        elif pipeline is not None and pipeline.status().last_written_position >= first_position[0]:
            seen = f"the pipeline wrote the batch of position {first_position[0]} (mended or overwritten since)"
        else:
            return None
        counts = {name: stats[name] for name in ("records", "corrupted_records", "corrupted_cells")}
        return Evidence(
            f"{link}: {counts['corrupted_cells']:.0f} values in {counts['corrupted_records']:.0f} of "
            f"{counts['records']:.0f} records scaled; read back from the feature store: {seen}",
            {**counts, "read_back": found},
        )

    return inject(
        proxy_fault("data.scale_records", link, "corrupt_records", parameters, links, evidence, within_s=10)
    )


def _rows_share(target: Target, features: Features, share: float) -> float:
    """Share of rows with at least one value that is hit: of nine columns, 61 % of them where a tenth of values is.

    How many columns there are, the store knows of an entity that the golden set asks for; if not, it may be any.
    """
    entity = ""
    with contextlib.suppress(UsageError):
        entity = _entity_in(first_golden_body(target.file))
    vector = features.read([entity]).get(entity) if entity else None
    return round(1.0 - (1.0 - share) ** len(vector), 4) if vector else 1.0


def _entity_in(body: Json) -> str:
    if isinstance(body, dict):
        if isinstance(body.get("entity"), str):
            return str(body["entity"])
        body = list(body.values())
    found = (_entity_in(one) for one in body) if isinstance(body, list) else ()
    return next((entity for entity in found if entity), "")


def _read_back(features: Features, journal: list[dict[str, Json]]) -> dict[str, Json] | None:
    """The newest journalled cell that the feature store holds, bit for bit."""
    newest = {(cell["entity"], cell["column"]): cell for cell in journal}
    cells = sorted(newest.values(), key=lambda cell: -cell["position"])
    entities = list(dict.fromkeys(cell["entity"] for cell in cells))[:_READ_BACK_ENTITIES]
    if not entities:
        return None
    stored = features.read(entities)
    for cell in cells:
        vector = stored.get(cell["entity"])
        if vector is not None and cell["column"] < len(vector):
            held = struct.pack("<d", vector[cell["column"]])
            if held == struct.pack("<d", cell["new"]):
                return cell
    return None
