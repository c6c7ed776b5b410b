"""What faults on a stream of records have in common: the checks before, the toxic, and what proves each kind.

A record that was changed either stands changed in the feature store, or the pipeline did not take it: then the
pipeline's own counts say so. Each fault names the looks that would prove it.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from monkeyproof.config.target_file import TargetFile
from monkeyproof.errors import Refusal, UsageError
from monkeyproof.faults.support.links import check_link, proxy_fault, seed_for
from monkeyproof.injection.fault_registry import Draw
from monkeyproof.injection.inject import Context, current, inject, within_limit
from monkeyproof.targets.opening import first_golden_body
from monkeyproof.targets.port import (
    Features,
    Feedback,
    Links,
    Pipeline,
    PipelineStatus,
    Target,
    require,
)
from monkeyproof.types import Evidence, Json

LINK = "source->pipeline"
UNDO = "the link leaves records alone again; by itself when the lease runs out"
EVIDENCE_WITHIN_S = 10.0
_READ_BACK_ENTITIES = 64
_LABELS = 200
_HAS_REJECTED = "has_rejected"
"""In what is on record of a fault: whether a rejection proves it."""


def drawn(full_share: float | None = None, **arguments: Json) -> Draw:
    """Arguments on targets that have the stream; with so large a share at full intensity."""

    def draw(
        rng: np.random.Generator,  # noqa: ARG001
        target: TargetFile,
        intensity: float,
    ) -> Mapping[str, Json] | None:
        if LINK not in target.links:
            return None
        return arguments if full_share is None else {"share": round(full_share * intensity, 3), **arguments}

    return draw


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to look at when a proof is sought."""

    target: Target
    stats: Mapping[str, Json]
    """Of the toxic; with something in its journal, or something held back."""
    before: PipelineStatus | None
    """Just before the fault; None where the target has no pipeline to ask."""
    first_position: int
    """The first record that was changed."""

    @property
    def journal(self) -> Sequence[Mapping[str, Json]]:
        found: Sequence[Mapping[str, Json]] = self.stats["journal"]
        return found

    def now(self) -> PipelineStatus | None:
        pipeline = self.target.find(Pipeline)
        return pipeline.status() if pipeline is not None else None


Look = Callable[[Seen], tuple[str, Json] | None]
"""What it sees, in words and as data; None while it sees no proof."""


def corrupt_records(
    name: str,
    link: str,
    fault: str,
    parameters: Mapping[str, Json],
    *,
    proven_by: Sequence[Look],
    rows_share: float | None = None,
    columns: Sequence[int] = (),
    needs: Sequence[type] = (),
    pauses_s: float = 0.0,
) -> dict[str, Json]:
    """Inject a fault of records on a link.

    Args:
        name: ``family.function``.
        fault: its name in ``monkeyproof.faults.proxy.records.faults``, with its ``parameters``.
        rows_share: of the records that are hit; None: each of an entity's values has the share in ``parameters``.
        columns: of the features that have to be there.
        needs: capabilities without which nothing would prove it, besides the links and the feature store.
        pauses_s: as of ``Injection``.

    Raises:
        UsageError, Refusal: as ``inject`` does; or the records have no such columns; or a rejection would prove
            it, and another fault on the link has them rejected already.
        Unproven: none of the looks saw anything in time.
    """
    from monkeyproof.faults.proxy.records.faults import record_fault

    context = current()
    parameters = {key: value for key, value in parameters.items() if value is not None}
    record_fault(fault, parameters)  # Checks them.
    check_link(context.target, link, protocol="http")
    links, features = require(context.target, Links), require(context.target, Features)
    for one in needs:
        require(context.target, one)
    _check_columns(context.target, features, columns)
    if rejected in proven_by:
        _refuse_second_rejection(context, link)
    if context.target.file.limits_in_force.rows_share is not None:
        if rows_share is None:
            width = len(columns) or width_of(context.target, features)
            # Of nine columns, 61 % of the rows where a tenth of values is; if nobody knows how many, all of them.
            rows_share = round(1.0 - (1.0 - parameters["share"]) ** width, 4) if width else 1.0
        within_limit("rows_share", rows_share, "the share of rows corrupted", adds_up=True)
    toxic = {"fault": fault, "parameters": parameters, "seed": seed_for(f"{name}/{link}")}
    pipeline = context.target.find(Pipeline)
    before: list[PipelineStatus] = []
    first_position: list[int] = []
    nearly: list[str] = []

    def evidence(toxic_id: str) -> Evidence | None:
        stats = links.stats(toxic_id)
        if stats["trouble"]:
            raise UsageError(f"{link}: its records do not fit this fault: {stats['trouble']}")
        if not stats["journal"] and not stats["newest_position"]:
            return None
        # The journal keeps the newest only, so its first entry is remembered from the first look.
        first_position[:] = first_position or [
            min((cell["position"] for cell in stats["journal"]), default=stats["newest_position"])
        ]
        seen = Seen(context.target, stats, before[0] if before else None, first_position[0])
        counts = {key: value for key, value in stats.items() if key.endswith(("records", "_cells"))}
        for look in proven_by:
            if (found := look(seen)) is not None:
                if look is written and not nearly:
                    nearly.append(toxic_id)  # The store may have gone on since the journal was read: look again.
                    return None
                words, data = found
                told = ", ".join(f"{value:.0f} {key.replace('_', ' ')}" for key, value in counts.items())
                return Evidence(f"{link}: {told}; {words}", {**counts, "read_back": data})
        return None

    injection = proxy_fault(name, link, "corrupt_records", toxic, links, evidence, within_s=EVIDENCE_WITHIN_S)

    def apply() -> str:
        before[:] = [pipeline.status()] if pipeline is not None else []
        added: str = injection.apply()
        return added

    prior = {**injection.prior, _HAS_REJECTED: rejected in proven_by}
    told = {**parameters, "seed": toxic["seed"]}
    return inject(replace(injection, apply=apply, parameters=told, prior=prior, pauses_s=pauses_s))


def _refuse_second_rejection(context: Context, link: str) -> None:
    """A batch that is rejected does not tell for which of two faults."""
    for one in context.undo.open_faults():
        if one.subject == link and one.prior.get(_HAS_REJECTED):
            raise Refusal(
                f"{one.fault} already has the pipeline reject what comes over {link}, so that no rejection would "
                "prove another fault",
                "take that fault back first",
            )


def columns_from(columns: str) -> tuple[int, ...]:
    """Numbers of columns as a person lists them: "0,3". None for "".

    Raises:
        UsageError: it is not such a list.
    """
    if not isinstance(columns, str) or not all(one.strip().isdecimal() for one in columns.split(",") if columns):
        raise UsageError(f'columns: {columns!r} are no numbers of features, such as "0,3"')
    return tuple(int(one) for one in columns.split(",")) if columns else ()


def width_of(target: Target, features: Features) -> int:
    """How many features an entity has, which the store knows of one that the golden set asks for; 0 if not."""
    entity = ""
    with contextlib.suppress(UsageError):
        entity = entity_in(first_golden_body(target.file))
    vector = features.read([entity]).get(entity) if entity else None
    return len(vector) if vector else 0


def _check_columns(target: Target, features: Features, columns: Sequence[int]) -> None:
    if columns and 0 < (width := width_of(target, features)) <= max(columns):
        raise UsageError(f"columns: there is no feature {max(columns)}; an entity has {width}, from 0 on")


def entity_in(body: Json) -> str:
    """The entity that a question asks about; "" if none can be told."""
    if isinstance(body, dict):
        if isinstance(body.get("entity"), str):
            return str(body["entity"])
        body = list(body.values())
    found = (entity_in(one) for one in body) if isinstance(body, list) else ()
    return next((entity for entity in found if entity), "")


# Looks.


def in_the_store(seen: Seen) -> tuple[str, Json] | None:
    """A changed value lies in the feature store, bit for bit."""
    changed = (cell for cell in seen.journal if isinstance(cell["column"], int))
    # Of one entity all of them: the store may not have got the newest yet.
    cells = sorted(
        (cell for cell in changed if isinstance(cell["new"], int | float)), key=lambda cell: -cell["position"]
    )
    entities = list(dict.fromkeys(cell["entity"] for cell in cells))[:_READ_BACK_ENTITIES]
    stored = require(seen.target, Features).read(entities) if entities else {}
    for cell in cells:
        vector = stored.get(cell["entity"])
        if vector is not None and cell["column"] < len(vector):
            held = struct.pack("<d", vector[cell["column"]])
            if held == struct.pack("<d", cell["new"]):
                words = f"{cell['entity']} has {cell['new']!r} for {cell['old']!r} in column {cell['column']}"
                return f"read back from the feature store: {words}", dict(cell)
    return None


def written(seen: Seen) -> tuple[str, Json] | None:
    """Where a healer was quicker than the look into the store: the pipeline has written past the first change."""
    now = seen.now()
    if now is None or now.last_written_position < seen.first_position:
        return None
    return (
        f"the pipeline has written past position {seen.first_position}, the first that was changed "
        "(mended or overwritten since)",
        None,
    )


def rejected(seen: Seen) -> tuple[str, Json] | None:
    """The pipeline's validation does not take the batches."""
    now, before = seen.now(), seen.before
    if now is None or before is None or now.batches_rejected <= before.batches_rejected:
        return None
    count = now.batches_rejected - before.batches_rejected
    return (
        f"the pipeline rejected {count} batch{'es' if count > 1 else ''} ({now.last_rejection}), and the last "
        f"record that it wrote is that of position {now.last_written_position}",
        {"batches_rejected": count, "why": now.last_rejection, "last_written": now.last_written_position},
    )


def never_read(seen: Seen) -> tuple[str, Json] | None:
    """The pipeline went past positions of which it read no record."""
    now, before = seen.now(), seen.before
    if now is None or before is None or now.records_read < before.records_read:
        return None
    lost = [cell["position"] for cell in seen.journal if cell["new"] == 0]
    past = now.last_position - before.last_position
    gap = past - (now.records_read - before.records_read)
    if gap <= 0 or not any(before.last_position < position < now.last_position for position in lost):
        return None
    words = f"the pipeline went on by {past} positions and read {past - gap} records: {gap} never came"
    return words, {"positions": past, "never_came": gap}


def behind(seen: Seen) -> tuple[str, Json] | None:
    """The pipeline has not got what passed the link long ago."""
    now, newest = seen.now(), int(seen.stats["newest_position"])
    if now is None or not seen.stats.get("held_back_records") or now.last_position >= newest:
        return None
    words = f"the pipeline stands at position {now.last_position}, and {newest} has left the source"
    return words, {"position": now.last_position, "newest_position": newest}


def under_another_name(seen: Seen) -> tuple[str, Json] | None:
    """The feature store holds features of an entity that there is not."""
    renamed = [cell for cell in seen.journal if cell["column"] == "entity" and cell["new"]][-_READ_BACK_ENTITIES:]
    names = list(dict.fromkeys(cell["new"] for cell in renamed))
    stored = require(seen.target, Features).read(names) if names else {}
    for cell in reversed(renamed):
        if stored.get(cell["new"]) == cell["features"]:
            words = f"read back from the feature store: features of {cell['old']!r} under {cell['new']!r}"
            return words, dict(cell)
    return None


def labelled_so(seen: Seen) -> tuple[str, Json] | None:
    """An answer was compared with a changed label."""
    feedback = seen.target.find(Feedback)
    changed = {cell["position"]: cell for cell in seen.journal if cell["column"] == "label"}
    for one in feedback.latest(_LABELS) if feedback is not None else ():
        cell = changed.get(one.position)
        if cell is not None and one.label == cell["new"]:
            words = f"read back from the feedback: {one.entity} was labelled {one.label} instead of {cell['old']}"
            return words, dict(cell)
    return None
