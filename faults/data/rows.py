"""Faults of the stream: whole records that are another's, duplicated, late or lost on their way into the store."""

from __future__ import annotations

from collections.abc import Sequence

from monkeyproof.faults.support.record_stream import (
    LINK,
    REACHED_STORE,
    UNDO,
    StreamProof,
    batches_rejected,
    corrupt_records,
    drawn,
    pipeline_behind,
    positions_skipped,
)
from monkeyproof.injection.fault_registry import fault
from monkeyproof.targets.port import Features, Links, Pipeline
from monkeyproof.types import Json

_STORED = "the feature store holds another record's features, bit for bit; or the pipeline has written past them"
_REJECTED = "the pipeline rejects the batches, reports why, and writes no more of them"
_SKIPPED = "the pipeline went past positions of which it read no record"
_REFILL = "nothing that users see; read from the source again, and backfill what is missing"


@fault(
    needs=(Links, Features),
    evidence=_STORED,
    undo=UNDO,
    healing="only answers show it, since values are as usual; restore, and repair the join",
    draw=drawn(1.0),
)
def swap_entities(
    link: str = LINK,
    share: float = 0.5,
    window_records: int = 50,
) -> dict[str, Json]:
    """Give records the features of other records: within each window, those that are hit are permuted.

    Position and entity stay; features and label are another's. The statistics of a batch do not change at all.

    Args:
        window_records: length of a window in positions; windows begin at multiples of it.
    """
    return _rows("swap_entities", link, "swapped_rows", share, REACHED_STORE, window_rows=window_records)


@fault(
    needs=(Links, Features),
    evidence=_STORED,
    undo=UNDO,
    healing="quarantine the stream, restore the last good snapshot",
    draw=drawn(1.0),
)
def freeze_records(
    link: str = LINK,
    share: float = 0.9,
    window_records: int = 50,
) -> dict[str, Json]:
    """Repeat the features of the first record of each window: a frozen source.

    Args:
        window_records: length of a window in positions; windows begin at multiples of it.
    """
    return _rows("freeze_records", link, "stale_rows", share, REACHED_STORE, window_rows=window_records)


@fault(
    needs=(Links, Features, Pipeline),
    evidence=_REJECTED,
    undo=UNDO,
    healing="accept each position once",
    draw=drawn(0.2),
)
def duplicate_records(
    link: str = LINK,
    share: float = 0.05,
) -> dict[str, Json]:
    """Deliver a share of the records twice, with the same position, one right after the other."""
    return _rows("duplicate_records", link, "duplicates", share, [batches_rejected])


@fault(
    former_names=("lose_records",),
    needs=(Links, Features, Pipeline),
    evidence=_SKIPPED,
    undo=UNDO,
    healing=_REFILL,
    draw=drawn(0.5),
)
def drop_records(
    link: str = LINK,
    share: float = 0.2,
) -> dict[str, Json]:
    """Drop a share of the records that pass ``link``."""
    return _rows("drop_records", link, "lost_rows", share, [positions_skipped])


@fault(
    needs=(Links, Features, Pipeline),
    evidence=_SKIPPED,
    undo=UNDO,
    healing=_REFILL,
    draw=drawn(0.5),
)
def truncate_batches(
    link: str = LINK,
    share: float = 0.3,
    kept: float = 0.5,
    window_records: int = 100,
) -> dict[str, Json]:
    """Cut the end off a share of the source's batches.

    Args:
        share: share of the windows that are cut.
        kept: share of such a window that still arrives.
        window_records: length of a batch at the source, in positions; batches begin at multiples of it.
    """
    parameters = {"kept": kept, "window_rows": window_records}
    return _rows("truncate_batches", link, "truncated_batches", share, [positions_skipped], **parameters)


@fault(
    needs=(Links, Features, Pipeline),
    evidence=_REJECTED,
    undo=UNDO,
    healing="sort records within a bounded window",
    draw=drawn(0.3),
)
def reorder_records(
    link: str = LINK,
    share: float = 0.05,
    window_records: int = 20,
) -> dict[str, Json]:
    """Deliver a share of the records late: after all others of their window, with unchanged positions.

    Args:
        window_records: length of a window in positions; windows begin at multiples of it.
    """
    return _rows("reorder_records", link, "late_rows", share, [batches_rejected], window_rows=window_records)


@fault(
    needs=(Links, Features, Pipeline),
    evidence="the pipeline has not read records that have left the source",
    undo=UNDO,
    healing="nothing makes late data arrive sooner; report the age of features, and bound it",
    draw=lambda rng, target, intensity: (  # noqa: ARG005
        {"lag_records": max(1, int(1000 * intensity))} if LINK in target.links else None
    ),
)
def delay_records(
    link: str = LINK,
    lag_records: int = 750,
) -> dict[str, Json]:
    """Delay all records by ``lag_records`` positions: in order, none lost, and stale.

    The embedded source makes 1,500 a second and keeps as many: with a larger lag no record arrives any more.
    """
    return corrupt_records(
        "data.delay_records",
        link,
        "late_stream",
        {"lag_records": lag_records},
        proven_by=[pipeline_behind],
        rows_share=1.0,
        needs=[Pipeline],
    )


def _rows(
    name: str, link: str, kind: str, share: float, proofs: Sequence[StreamProof], **parameters: Json
) -> dict[str, Json]:
    return corrupt_records(
        f"data.{name}",
        link,
        kind,
        {"share": share, **parameters},
        proven_by=proofs,
        rows_share=share,
        needs=[] if proofs == REACHED_STORE else [Pipeline],
    )
