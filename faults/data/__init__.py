"""The family of corrupt data: values that look plausible and are wrong.

Two things stand under this name. The data engine corrupts tables that a caller has:

    from monkeyproof.faults.data import Missing, Scale, corrupt

    found = corrupt(frame, [Missing(share=0.1), Scale(share=0.1, columns=("price",))], seed=7)
    found.table, found.mask(), found.restored()

The faults of the family (``scale_records`` and the like) do the same to the records of a target, in a trial. The
engine needs numpy alone, so the faults, which need the whole harness, are imported when one is first asked for.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from monkeyproof.faults.corruption.batches import CorruptBatch
from monkeyproof.faults.corruption.cells import (
    CellFault,
    Missing,
    Noise,
    Outlier,
    Scale,
    SignFlip,
    UnitChange,
    Where,
)
from monkeyproof.faults.corruption.drift import (
    BenignDrift,
    ConceptDrift,
    CovariateShift,
    PriorShift,
    Ramp,
    Recurring,
    Sudden,
)
from monkeyproof.faults.corruption.memory import Workspace
from monkeyproof.faults.corruption.rows import (
    Duplicates,
    LateRows,
    LostRows,
    RowFault,
    StaleRows,
    SwappedRows,
    TruncatedBatches,
)
from monkeyproof.faults.corruption.schema import ExtraColumn, LostColumn, RenamedColumn, SchemaFault, TextColumn
from monkeyproof.faults.corruption.swaps import SwapFault, SwappedColumns, SwappedValues
from monkeyproof.faults.corruption.tables import Corrupted, corrupt
from monkeyproof.faults.corruption.text import BrokenEncoding, LabelNoise, TextFault, Typo, UnseenCategory

if TYPE_CHECKING:
    from monkeyproof.faults.data.fields import *  # noqa: F403
    from monkeyproof.faults.data.rows import *  # noqa: F403
    from monkeyproof.faults.data.values import *  # noqa: F403

__all__ = [
    "BenignDrift",
    "BrokenEncoding",
    "CellFault",
    "ConceptDrift",
    "CorruptBatch",
    "Corrupted",
    "CovariateShift",
    "Duplicates",
    "ExtraColumn",
    "LabelNoise",
    "LateRows",
    "LostColumn",
    "LostRows",
    "Missing",
    "Noise",
    "Outlier",
    "PriorShift",
    "Ramp",
    "Recurring",
    "RenamedColumn",
    "Room",
    "RowFault",
    "Scale",
    "SchemaFault",
    "SignFlip",
    "StaleRows",
    "Sudden",
    "SwapFault",
    "SwappedColumns",
    "SwappedRows",
    "SwappedValues",
    "TextColumn",
    "TextFault",
    "TruncatedBatches",
    "Typo",
    "UnitChange",
    "UnseenCategory",
    "Where",
    "Workspace",
    "corrupt",
]


Room = Workspace
"""The former name of ``Workspace``, for one version."""


@functools.cache
def _collect_faults() -> None:
    from monkeyproof.injection.fault_registry import collect_faults

    of_the_engine = list(__all__)
    collect_faults(__name__)
    globals()["__all__"] = sorted({*of_the_engine, *globals()["__all__"]})


if not TYPE_CHECKING:  # So that a type checker finds a name that is misspelt.

    def __getattr__(name: str) -> object:
        """A fault of the family."""
        if not name.startswith("__"):
            _collect_faults()
            if name in globals():
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """All names, since Chaos Toolkit and the list of faults find a fault only among a module's members."""
        _collect_faults()
        return sorted(globals())
