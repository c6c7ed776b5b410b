"""What faults on a stream of records have in common: checks, the toxic, and the kinds of proof.

A changed record either reaches the feature store, where it can be read back, or the pipeline does not take it, as
the pipeline's own counts show. Each fault names the proofs that would do for it.
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
UNDO = "the proxy passes records unchanged again; by itself when the lease runs out"
EVIDENCE_WITHIN_S = 10.0
_READ_BACK_ENTITIES = 64
_LABELS = 200
_HAS_REJECTED = "has_rejected"
"""Key in a fault's prior state: whether a rejection proves it."""


def drawn(full_share: float | None = None, **arguments: Json) -> Draw:
    """Draws arguments on targets that have the stream. ``full_share``: the share at full intensity."""

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
class StreamObservation:
    """What a proof may rest on: the toxic's counts, and the target as it is now."""

    target: Target
    stats: Mapping[str, Json]
    """The toxic's statistics; its journal, or what it holds back, is not empty."""
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


StreamProof = Callable[[StreamObservation], tuple[str, Json] | None]
"""Looks for one kind of proof; returns it in words and as data, or None while there is none."""


def corrupt_records(
    name: str,
    link: str,
    fault: str,
    parameters: Mapping[str, Json],
    *,
    proven_by: Sequence[StreamProof],
    rows_share: float | None = None,
    columns: Sequence[int] = (),
    needs: Sequence[type] = (),
    pauses_s: float = 0.0,
) -> dict[str, Json]:
    """Inject a fault of records on a link: the one way of all faults of ``data`` and ``drift``.

    Args:
        name: ``family.function``.
        fault: its name in ``monkeyproof.faults.proxy.records.faults``, with its ``parameters``.
        rows_share: of the records that are hit; None: each of an entity's values has the share in ``parameters``.
        columns: of the features that have to be there.
        needs: capabilities that the proof needs, besides the links and the feature store.
        pauses_s: as of ``Injection``.

    Raises:
        UsageError, Refusal: as ``inject`` does; or the records have no such columns; or a rejection would prove
            it, and another fault on the link has them rejected already.
        Unproven: no proof was found in time.
    """
    context = current()
    parameters = {key: value for key, value in parameters.items() if value is not None}
    _check(context, link, fault, parameters, proven_by, columns, needs)
    _check_rows_limit(context.target, parameters, rows_share, columns)
    toxic = {"fault": fault, "parameters": parameters, "seed": seed_for(f"{name}/{link}")}
    links = require(context.target, Links)
    search = _ProofSearch(context.target, links, link, proven_by)
    injection = proxy_fault(
        name, link, "corrupt_records", toxic, links, search.evidence, within_s=EVIDENCE_WITHIN_S
    )

    def apply() -> str:
        search.note_pipeline()
        added: str = injection.apply()
        return added

    prior = {**injection.prior, _HAS_REJECTED: batches_rejected in proven_by}
    on_record = {**parameters, "seed": toxic["seed"]}
    return inject(replace(injection, apply=apply, parameters=on_record, prior=prior, pauses_s=pauses_s))


@dataclass
class _ProofSearch:
    """Looks for a proof that records of a link were changed, again and again."""

    target: Target
    links: Links
    link: str
    proofs: Sequence[StreamProof]
    before: PipelineStatus | None = None
    first_position: int | None = None
    """Of the first record that was changed. The journal keeps the newest only, so the first call notes it."""
    written_once: bool = False

    def note_pipeline(self) -> None:
        """Note the pipeline's counts just before the fault."""
        pipeline = self.target.find(Pipeline)
        self.before = pipeline.status() if pipeline is not None else None

    def evidence(self, toxic_id: str) -> Evidence | None:
        """The first proof that is found; None while there is none.

        Raises:
            UsageError: the records do not fit the fault.
        """
        stats = self.links.stats(toxic_id)
        if stats["trouble"]:
            raise UsageError(f"{self.link}: its records do not fit this fault: {stats['trouble']}")
        if not stats["journal"] and not stats["newest_position"]:
            return None
        if self.first_position is None:
            changed = (cell["position"] for cell in stats["journal"])
            self.first_position = min(changed, default=stats["newest_position"])
        observation = StreamObservation(self.target, stats, self.before, self.first_position)
        counts = {key: value for key, value in stats.items() if key.endswith(("records", "_cells"))}
        for proof in self.proofs:
            if (found := proof(observation)) is None:
                continue
            if proof is written_past and not self.written_once:
                self.written_once = True  # The store may have got a value since the journal was read: look again.
                return None
            words, data = found
            counted = ", ".join(f"{value:.0f} {key.replace('_', ' ')}" for key, value in counts.items())
            return Evidence(f"{self.link}: {counted}; {words}", {**counts, "read_back": data})
        return None


def _check(
    context: Context,
    link: str,
    fault: str,
    parameters: Mapping[str, Json],
    proven_by: Sequence[StreamProof],
    columns: Sequence[int],
    needs: Sequence[type],
) -> None:
    """Raise what ``corrupt_records`` raises before anything is done."""
    from monkeyproof.faults.proxy.records.faults import record_fault

    record_fault(fault, parameters)
    check_link(context.target, link, protocol="http")
    for one in (Links, Features, *needs):
        require(context.target, one)
    _check_columns(context.target, require(context.target, Features), columns)
    if batches_rejected in proven_by:
        _refuse_second_rejection(context, link)


def _check_rows_limit(
    target: Target, parameters: Mapping[str, Json], rows_share: float | None, columns: Sequence[int]
) -> None:
    if target.file.limits_in_force.rows_share is None:
        return
    if rows_share is None:
        width = len(columns) or feature_count(target, require(target, Features))
        # With nine columns, a tenth of the values is 61 % of the rows; with an unknown number, possibly all.
        rows_share = round(1.0 - (1.0 - parameters["share"]) ** width, 4) if width else 1.0
    within_limit("rows_share", rows_share, "the share of rows corrupted", adds_up=True)


def _refuse_second_rejection(context: Context, link: str) -> None:
    """Refuse a fault whose proof could be another one's: a rejected batch does not tell which fault it is for."""
    for one in context.undo.open_faults():
        if one.subject == link and one.prior.get(_HAS_REJECTED):
            raise Refusal(
                f"{one.fault} already has the pipeline reject what comes over {link}, so that no rejection would "
                "prove another fault",
                "revert that fault first",
            )


def columns_from(columns: str) -> tuple[int, ...]:
    """Numbers of columns as a person lists them: "0,3". None for "".

    Raises:
        UsageError: it is not such a list.
    """
    if not isinstance(columns, str) or not all(one.strip().isdecimal() for one in columns.split(",") if columns):
        raise UsageError(f'columns: {columns!r} are no numbers of features, such as "0,3"')
    return tuple(int(one) for one in columns.split(",")) if columns else ()


def feature_count(target: Target, features: Features) -> int:
    """How many features an entity has, which the store knows of one that the golden set asks for; 0 if not."""
    entity = ""
    with contextlib.suppress(UsageError):
        entity = entity_in(first_golden_body(target.file))
    vector = features.read([entity]).get(entity) if entity else None
    return len(vector) if vector else 0


def _check_columns(target: Target, features: Features, columns: Sequence[int]) -> None:
    if columns and 0 < (width := feature_count(target, features)) <= max(columns):
        raise UsageError(f"columns: there is no feature {max(columns)}; an entity has {width}, from 0 on")


def entity_in(body: Json) -> str:
    """The entity that a question asks about; "" if it names none."""
    if isinstance(body, dict):
        if isinstance(body.get("entity"), str):
            return str(body["entity"])
        body = list(body.values())
    found = (entity_in(one) for one in body) if isinstance(body, list) else ()
    return next((entity for entity in found if entity), "")


# Proofs.


def value_in_store(observed: StreamObservation) -> tuple[str, Json] | None:
    """The feature store holds a changed value, bit for bit."""
    changed = (cell for cell in observed.journal if isinstance(cell["column"], int))
    # All cells of an entity: the store may not have the newest yet.
    cells = sorted(
        (cell for cell in changed if isinstance(cell["new"], int | float)), key=lambda cell: -cell["position"]
    )
    entities = list(dict.fromkeys(cell["entity"] for cell in cells))[:_READ_BACK_ENTITIES]
    stored = require(observed.target, Features).read(entities) if entities else {}
    for cell in cells:
        vector = stored.get(cell["entity"])
        if vector is not None and cell["column"] < len(vector):
            held = struct.pack("<d", vector[cell["column"]])
            if held == struct.pack("<d", cell["new"]):
                words = f"{cell['entity']} has {cell['new']!r} for {cell['old']!r} in column {cell['column']}"
                return f"read back from the feature store: {words}", dict(cell)
    return None


def written_past(observed: StreamObservation) -> tuple[str, Json] | None:
    """The pipeline has written past the first change: a healer was quicker than the look into the store."""
    now = observed.now()
    if now is None or now.last_written_position < observed.first_position:
        return None
    return (
        f"the pipeline has written past position {observed.first_position}, the first that was changed "
        "(repaired or overwritten since)",
        None,
    )


REACHED_STORE: Sequence[StreamProof] = (value_in_store, written_past)
"""The proofs that changed values have reached the feature store."""


def batches_rejected(observed: StreamObservation) -> tuple[str, Json] | None:
    """The pipeline's validation does not take the batches."""
    now, before = observed.now(), observed.before
    if now is None or before is None or now.batches_rejected <= before.batches_rejected:
        return None
    count = now.batches_rejected - before.batches_rejected
    return (
        f"the pipeline rejected {count} batch{'es' if count > 1 else ''} ({now.last_rejection}), and the last "
        f"record that it wrote is that of position {now.last_written_position}",
        {"batches_rejected": count, "why": now.last_rejection, "last_written": now.last_written_position},
    )


def positions_skipped(observed: StreamObservation) -> tuple[str, Json] | None:
    """The pipeline went past positions of which it read no record."""
    now, before = observed.now(), observed.before
    if now is None or before is None or now.records_read < before.records_read:
        return None
    lost = [cell["position"] for cell in observed.journal if cell["new"] == 0]
    past = now.last_position - before.last_position
    gap = past - (now.records_read - before.records_read)
    if gap <= 0 or not any(before.last_position < position < now.last_position for position in lost):
        return None
    words = f"the pipeline went on by {past} positions and read {past - gap} records: {gap} never came"
    return words, {"positions": past, "never_came": gap}


def pipeline_behind(observed: StreamObservation) -> tuple[str, Json] | None:
    """The pipeline is behind: it has not got what passed the link earlier."""
    now, newest = observed.now(), int(observed.stats["newest_position"])
    if now is None or not observed.stats.get("held_back_records") or now.last_position >= newest:
        return None
    words = f"the pipeline stands at position {now.last_position}, and {newest} has left the source"
    return words, {"position": now.last_position, "newest_position": newest}


def stored_under_other_name(observed: StreamObservation) -> tuple[str, Json] | None:
    """The feature store holds features under a changed name."""
    renamed = [cell for cell in observed.journal if cell["column"] == "entity" and cell["new"]][
        -_READ_BACK_ENTITIES:
    ]
    names = list(dict.fromkeys(cell["new"] for cell in renamed))
    stored = require(observed.target, Features).read(names) if names else {}
    for cell in reversed(renamed):
        if stored.get(cell["new"]) == cell["features"]:
            words = f"read back from the feature store: features of {cell['old']!r} under {cell['new']!r}"
            return words, dict(cell)
    return None


def changed_label_used(observed: StreamObservation) -> tuple[str, Json] | None:
    """An answer was compared with a changed label."""
    feedback = observed.target.find(Feedback)
    changed = {cell["position"]: cell for cell in observed.journal if cell["column"] == "label"}
    for one in feedback.latest(_LABELS) if feedback is not None else ():
        cell = changed.get(one.position)
        if cell is not None and one.label == cell["new"]:
            words = f"read back from the feedback: {one.entity} was labelled {one.label} instead of {cell['old']}"
            return words, dict(cell)
    return None
