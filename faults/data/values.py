"""Faults of the stream: wrong feature values in the records on their way into the store."""

from __future__ import annotations

from monkeyproof.errors import UsageError
from monkeyproof.faults.support.record_stream import (
    LINK,
    REACHED_STORE,
    UNDO,
    batches_rejected,
    columns_from,
    corrupt_records,
    drawn,
)
from monkeyproof.injection.fault_registry import fault
from monkeyproof.targets.port import Features, Links, Pipeline
from monkeyproof.types import Json

_STORED = "the feature store holds a changed value, bit for bit; or the pipeline has written past it"
_RESTORE = "quarantine the stream, restore the last good snapshot"


@fault(needs=(Links, Features), evidence=_STORED, undo=UNDO, healing=_RESTORE, draw=drawn(0.3))
def scale_records(
    link: str = LINK,
    share: float = 0.1,
    low: float = -10.0,
    high: float = 10.0,
    columns: str = "",
) -> dict[str, Json]:
    """Multiply a share of the feature values of every record that passes ``link`` by a factor in ``[low, high]``.

    The evidence is a changed value in the feature store; or, where a healer was quicker, the pipeline's report
    that it has written past the first changed record.

    Args:
        columns: indices of features from 0 on, such as "0,3"; "" is all of them.
    """
    return _values("scale_records", link, "scale", share, columns, low=low, high=high)


@fault(
    needs=(Links, Features, Pipeline),
    evidence="the pipeline rejects the batches, reports why, and writes no more of them",
    undo=UNDO,
    healing="accept the good records of a batch, or read from the source again",
    draw=drawn(0.3),
)
def missing_values(
    link: str = LINK,
    share: float = 0.1,
    columns: str = "",
    written_as: str = "null",
    where_column: str = "",
    at_least: float | None = None,
    at_most: float | None = None,
) -> dict[str, Json]:
    """Remove a share of the feature values of the records that pass ``link``.

    Completely at random (MCAR); with ``at_least`` or ``at_most`` only values within that range (MNAR); with
    ``where_column`` as well, only where that other feature lies in the range (MAR).

    Args:
        columns: indices of features from 0 on, such as "0,3"; "" is all of them.
        written_as: ``null``, or ``NaN`` as Python writes and reads it.
        where_column: index of the feature that decides.
        at_least, at_most: in that column's unit.
    """
    bounds = {"at_least": at_least, "at_most": at_most}
    where = {name: value for name, value in bounds.items() if value is not None}
    if where_column and not where:
        raise UsageError("where_column: say in which range, with at_least or at_most")
    numbers = columns_from(columns)
    return corrupt_records(
        "data.missing_values",
        link,
        "missing",
        {
            "share": share,
            "columns": [str(one) for one in numbers],
            "written_as": written_as,
            "where": {"column": where_column, **where} if where else None,
        },
        proven_by=[batches_rejected],
        columns=(*numbers, *columns_from(where_column)),
        needs=[Pipeline],
    )


@fault(
    needs=(Links, Features),
    evidence=_STORED,
    undo=UNDO,
    healing=_RESTORE,
    draw=drawn(1.0, sd=1.0, relative=True),
)
def add_noise(
    sd: float,
    link: str = LINK,
    share: float = 1.0,
    columns: str = "",
    relative: bool = False,
) -> dict[str, Json]:
    """Add Gaussian noise to a share of the feature values of the records that pass ``link``.

    Args:
        sd: standard deviation, in the unit of the column; with ``relative``, as a share of the value itself.
        columns: indices of features from 0 on, such as "0,3"; "" is all of them.
    """
    return _values("add_noise", link, "noise", share, columns, sd=sd, relative=relative)


@fault(needs=(Links, Features), evidence=_STORED, undo=UNDO, healing=_RESTORE, draw=drawn(0.1, unit=30.0))
def add_outliers(
    unit: float,
    link: str = LINK,
    share: float = 0.05,
    low: float = 5.0,
    high: float = 10.0,
    columns: str = "",
) -> dict[str, Json]:
    """Move a share of the feature values far out, up or down, by U(low, high) times ``unit``.

    Args:
        unit: in the unit of the column; its standard deviation, for example.
        columns: indices of features from 0 on, such as "0,3"; "" is all of them.
    """
    return _values("add_outliers", link, "outlier", share, columns, unit=unit, low=low, high=high)


@fault(needs=(Links, Features), evidence=_STORED, undo=UNDO, healing=_RESTORE, draw=drawn(1.0))
def flip_signs(
    link: str = LINK,
    share: float = 1.0,
    columns: str = "",
) -> dict[str, Json]:
    """Flip the sign of a share of the feature values of the records that pass ``link``.

    Args:
        columns: indices of features from 0 on, such as "0,3"; "" is all of them.
    """
    return _values("flip_signs", link, "sign_flip", share, columns)


@fault(
    needs=(Links, Features),
    evidence=_STORED,
    undo=UNDO,
    healing=_RESTORE,
    draw=drawn(1.0, columns="0", factor=1000.0),
)
def change_unit(
    columns: str,
    factor: float = 1000.0,
    offset: float = 0.0,
    link: str = LINK,
    share: float = 1.0,
) -> dict[str, Json]:
    """Convert features to another unit, in a share of the records: ``value * factor + offset``.

    Metres as millimetres are ``factor`` 1000; Celsius as Fahrenheit ``factor`` 1.8 and ``offset`` 32.

    Args:
        columns: indices of features from 0 on, such as "0,3"; "" is all of them.
        offset: in the new unit.
    """
    return _values("change_unit", link, "unit_change", share, columns, factor=factor, offset=offset)


@fault(
    needs=(Links, Features),
    evidence=_STORED,
    undo=UNDO,
    healing=_RESTORE,
    draw=drawn(1.0, first=0, second=1),
)
def swap_columns(
    first: int,
    second: int,
    link: str = LINK,
    share: float = 1.0,
) -> dict[str, Json]:
    """Swap two features, in a share of the records that pass ``link``.

    Args:
        first, second: indices of features, from 0 on.
    """
    parameters = {"first": first, "second": second, "share": share}
    found = [one for one in (first, second) if isinstance(one, int)]
    return corrupt_records(
        "data.swap_columns",
        link,
        "swapped_columns",
        parameters,
        proven_by=REACHED_STORE,
        rows_share=share,
        columns=found,
    )


def _values(name: str, link: str, kind: str, share: float, columns: str, **parameters: Json) -> dict[str, Json]:
    numbers = columns_from(columns)
    return corrupt_records(
        f"data.{name}",
        link,
        kind,
        {"share": share, "columns": [str(one) for one in numbers], **parameters},
        proven_by=REACHED_STORE,
        columns=numbers,
    )
