"""Corrupt data: numbers that look plausible and are wrong, on their way into the feature store."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monkeyproof.errors import UsageError
from monkeyproof.faults.proxied import check_link, check_number, check_share, proxy_fault, seed_for
from monkeyproof.injection import current, inject, within_limit
from monkeyproof.targets.opening import first_golden_body
from monkeyproof.targets.port import Features, Links, Pipeline, Target, require
from monkeyproof.types import Evidence, Json

__all__ = ["scale_records"]

Floats = NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_HIT, _FACTOR, _OFFSET = 1, 2, 3
_READ_BACK_ENTITIES = 64


@dataclass(frozen=True, slots=True)
class Corruption:
    """A corrupted copy, and which cells of it were corrupted."""

    values: Floats
    mask: NDArray[np.bool_]


def scale_cells(
    values: Any,
    first_position: int = 0,
    *,
    positions: Any = None,
    share: float,
    low: float,
    high: float,
    seed: int,
) -> Corruption:
    """Multiply about ``share`` of the cells by a factor drawn from ``[low, high]``.

    What happens to a cell depends on ``(seed, column, absolute position of its row)`` alone, so any way of
    cutting the rows into batches gives the same bytes. A corrupted cell always differs from what it was: where a
    factor changes nothing or leads out of the finite numbers (the value is 0, NaN, infinite or huge, or the factor
    is 1), an offset drawn from ``[low, high]`` is added instead (to 0 if the value is not finite; 1 if the offset
    is 0), and a value too large for that changes its sign.

    Args:
        values: (n, d) numbers. Never changed.
        first_position: absolute position of the first row; the others follow it.
        positions: instead of ``first_position``, the absolute position of every row.

    Raises:
        UsageError: a parameter is out of its range.
    """
    check_scaling(share, low, high)
    found = np.array(values, dtype=np.float64)  # A copy.
    if found.ndim != 2:
        raise UsageError(f"scale_cells: needs an (n, d) array, not one of shape {found.shape}")
    rows_count, columns_count = found.shape
    if positions is None:
        if first_position < 0:
            raise UsageError("scale_cells: positions are never negative")
        rows = np.uint64(first_position) + np.arange(rows_count, dtype=np.uint64)
    else:
        rows = np.asarray(positions, dtype=np.uint64)
        if rows.shape != (rows_count,):
            raise UsageError(f"scale_cells: {rows_count} rows need as many positions, not {rows.shape}")
    columns = np.arange(columns_count, dtype=np.uint64)
    mask = _uniform(seed, _HIT, columns[None, :], rows[:, None]) < share
    row_at, column_at = np.nonzero(mask)
    found[row_at, column_at] = _scaled(
        found[row_at, column_at],
        low + (high - low) * _uniform(seed, _FACTOR, columns[column_at], rows[row_at]),
        low + (high - low) * _uniform(seed, _OFFSET, columns[column_at], rows[row_at]),
    )
    return Corruption(found, mask)


def check_scaling(share: float, low: float, high: float) -> None:
    """Raise UsageError unless the parameters of a scaling make sense."""
    check_number("share", share)
    check_number("low", low)
    check_number("high", high)
    check_share("share", share)
    if low > high:
        raise UsageError(f"low: {low} is above high, {high}")
    if not np.isfinite(high - low):
        raise UsageError(f"low, high: from {low} to {high} is too far apart")


def _scaled(old: Floats, factor: Floats, offset: Floats) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):
        new = old * factor
        unfit = ~np.isfinite(new) | (new == old)
        new[unfit] = np.where(np.isfinite(old), old, 0.0)[unfit] + np.where(offset == 0, 1.0, offset)[unfit]
        stuck = ~np.isfinite(new) | (new == old)
        new[stuck] = -old[stuck]
    return new


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators"
    (OOPSLA 2014), with the constants of Vigna's public-domain splitmix64.c."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _uniform(seed: int, purpose: int, columns: NDArray[np.uint64], rows: NDArray[np.uint64]) -> Floats:
    """Numbers in [0, 1): the generator keyed by (seed, purpose, column), at the step that the row names."""
    start = _mix(np.array([seed & (2**64 - 1)], dtype=np.uint64) + _GOLDEN)
    steps = np.array([purpose], dtype=np.uint64) * _GOLDEN
    keys = _mix(_mix(start + steps) ^ (columns + np.uint64(1)) * _GOLDEN)
    found: Floats = (_mix(keys + rows * _GOLDEN) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return found


def scale_records(
    link: str = "source->pipeline",
    share: float = 0.1,
    low: float = -10.0,
    high: float = 10.0,
    configuration: object = None,  # noqa: ARG001
    secrets: object = None,  # noqa: ARG001
) -> dict[str, Json]:
    """Multiply a share of the feature values of every record that passes ``link`` by a factor in ``[low, high]``.

    Its evidence is that changed records were written into the feature store: a changed value lies there; or, where
    a healer was quicker than the look, the pipeline says that it wrote their batch.
    """
    context = current()
    check_scaling(share, low, high)
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
