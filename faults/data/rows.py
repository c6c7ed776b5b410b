"""Whole records that are wrong on their way into the feature store: another's, twice, late, or not at all."""

from __future__ import annotations

from monkeyproof.faults.support.record_stream import (
    LINK,
    UNDO,
    behind,
    corrupt_records,
    drawn,
    in_the_store,
    never_read,
    rejected,
    written,
)
from monkeyproof.injection.fault_registry import fault
from monkeyproof.targets.port import Features, Links, Pipeline
from monkeyproof.types import Json

_STORED = (
    "features of another record stand in the feature store, bit for bit; or the pipeline has written past them"
)
_REJECTED = "the pipeline rejects the batches, says why, and writes no more of them"
_NEVER_CAME = "the pipeline went past positions of which it read no record"
_REFILL = "nothing that users see; ask the source again, refill what never came"


@fault(
    needs=(Links, Features),
    evidence=_STORED,
    undo=UNDO,
    healing="answers alone tell: the values are as usual; restore, and find the join that went wrong",
    draw=drawn(1.0),
)
def swap_entities(
    link: str = LINK,
    share: float = 0.5,
    window_records: int = 50,
) -> dict[str, Json]:
    """Have records carry the features of others: within each window those that are hit change places.

    Position and entity stay; features and label are another's. Statistics of a batch do not change at all.

    Args:
        window_records: so many positions, beginning at multiples of it.
    """
    return _rows("swap_entities", link, "swapped_rows", share, [in_the_store, written], window_rows=window_records)


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
    """Have records repeat the features of the first one of their window: a source that stands still.

    Args:
        window_records: so many positions, beginning at multiples of it.
    """
    return _rows("freeze_records", link, "stale_rows", share, [in_the_store, written], window_rows=window_records)


@fault(
    needs=(Links, Features, Pipeline),
    evidence=_REJECTED,
    undo=UNDO,
    healing="take each position once",
    draw=drawn(0.2),
)
def duplicate_records(
    link: str = LINK,
    share: float = 0.05,
) -> dict[str, Json]:
    """Deliver a share of the records twice, with the same position, one right after the other."""
    return _rows("duplicate_records", link, "duplicates", share, [rejected])


@fault(needs=(Links, Features, Pipeline), evidence=_NEVER_CAME, undo=UNDO, healing=_REFILL, draw=drawn(0.5))
def lose_records(
    link: str = LINK,
    share: float = 0.2,
) -> dict[str, Json]:
    """Have a share of the records that pass ``link`` never arrive."""
    return _rows("lose_records", link, "lost_rows", share, [never_read])


@fault(
    needs=(Links, Features, Pipeline),
    evidence=_NEVER_CAME,
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
    """Have a share of the source's batches lose their end.

    Args:
        share: of windows.
        kept: share of such a window that still comes.
        window_records: what is a batch at the source: so many positions, beginning at multiples of it.
    """
    parameters = {"kept": kept, "window_rows": window_records}
    return _rows("truncate_batches", link, "truncated_batches", share, [never_read], **parameters)


@fault(
    needs=(Links, Features, Pipeline),
    evidence=_REJECTED,
    undo=UNDO,
    healing="sort what comes, within a bound",
    draw=drawn(0.3),
)
def reorder_records(
    link: str = LINK,
    share: float = 0.05,
    window_records: int = 20,
) -> dict[str, Json]:
    """Have a share of the records come late: after all others of their window, with the position they have.

    Args:
        window_records: so many positions, beginning at multiples of it.
    """
    return _rows("reorder_records", link, "late_rows", share, [rejected], window_rows=window_records)


@fault(
    needs=(Links, Features, Pipeline),
    evidence="records that left the source are not among those that the pipeline has read",
    undo=UNDO,
    healing="nothing brings late data sooner; say how old features are, and bound it",
    draw=lambda rng, target, intensity: (  # noqa: ARG005
        {"lag_records": max(1, int(1000 * intensity))} if LINK in target.links else None
    ),
)
def delay_records(
    link: str = LINK,
    lag_records: int = 750,
) -> dict[str, Json]:
    """Have all records come late by ``lag_records`` positions: in order, none lost, and stale.

    The embedded source makes 1,500 a second and keeps as many: with a larger lag nothing comes any more.
    """
    return corrupt_records(
        "data.delay_records",
        link,
        "late_stream",
        {"lag_records": lag_records},
        proven_by=[behind],
        rows_share=1.0,
        needs=[Pipeline],
    )


def _rows(name: str, link: str, kind: str, share: float, looks: list[Json], **parameters: Json) -> dict[str, Json]:
    return corrupt_records(
        f"data.{name}",
        link,
        kind,
        {"share": share, **parameters},
        proven_by=looks,
        rows_share=share,
        needs=[] if in_the_store in looks else [Pipeline],
    )
