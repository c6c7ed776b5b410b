"""The family of corrupt data: values that look plausible and are wrong.

Two things stand under this name. The data engine corrupts tables that a caller has:

    from monkeyproof.faults.data import Missing, Scale, corrupt

    found = corrupt(frame, [Missing(share=0.1), Scale(share=0.1, columns=("price",))], seed=7)
    found.table, found.mask(), found.restored()

The faults of the family (``scale_records`` and the like) do the same to the records of a target, in a trial. The
engine needs numpy alone, so the faults, which need the whole harness, are imported when they are first asked for.
"""

from __future__ import annotations

import importlib
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
from monkeyproof.faults.corruption.memory import Room
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
    from monkeyproof.faults.data.fields import (
        add_column,
        add_typos,
        break_encoding,
        drop_column,
        flip_labels,
        rename_column,
        retype_column,
        unseen_categories,
    )
    from monkeyproof.faults.data.rows import (
        delay_records,
        duplicate_records,
        freeze_records,
        lose_records,
        reorder_records,
        swap_entities,
        truncate_batches,
    )
    from monkeyproof.faults.data.values import (
        add_noise,
        add_outliers,
        change_unit,
        flip_signs,
        missing_values,
        scale_records,
        swap_columns,
    )

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
    "add_column",
    "add_noise",
    "add_outliers",
    "add_typos",
    "break_encoding",
    "change_unit",
    "corrupt",
    "delay_records",
    "drop_column",
    "duplicate_records",
    "flip_labels",
    "flip_signs",
    "freeze_records",
    "lose_records",
    "missing_values",
    "rename_column",
    "reorder_records",
    "retype_column",
    "scale_records",
    "swap_columns",
    "swap_entities",
    "truncate_batches",
    "unseen_categories",
]

_FAULT_MODULES = ("fields", "rows", "values")


def __getattr__(name: str) -> object:
    """A fault of the family, from the module that has it."""
    if name in __all__:
        for module_name in _FAULT_MODULES:
            module = importlib.import_module(f"{__name__}.{module_name}")
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """All names, because Chaos Toolkit finds an action only among a module's members."""
    return sorted({*globals(), *__all__})
