"""Values that look plausible and are wrong: in tables of yours, and in the records of a target.

from monkeyproof.faults.data import Missing, Scale, corrupt

found = corrupt(frame, [Missing(share=0.1), Scale(share=0.1, columns=("price",))], seed=7)
found.table, found.mask(), found.restored()
"""

from monkeyproof.faults.data.batches import CorruptBatch
from monkeyproof.faults.data.cells import (
    CellFault,
    Missing,
    Noise,
    Outlier,
    Scale,
    SignFlip,
    UnitChange,
    Where,
)
from monkeyproof.faults.data.drift import (
    BenignDrift,
    ConceptDrift,
    CovariateShift,
    PriorShift,
    Ramp,
    Recurring,
    Sudden,
)
from monkeyproof.faults.data.memory import Room
from monkeyproof.faults.data.rows import (
    Duplicates,
    LateRows,
    LostRows,
    RowFault,
    StaleRows,
    SwappedRows,
    TruncatedBatches,
)
from monkeyproof.faults.data.schema import ExtraColumn, LostColumn, RenamedColumn, SchemaFault, TextColumn
from monkeyproof.faults.data.streamed import scale_records
from monkeyproof.faults.data.swaps import SwapFault, SwappedColumns, SwappedValues
from monkeyproof.faults.data.tables import Corrupted, corrupt
from monkeyproof.faults.data.text import BrokenEncoding, LabelNoise, TextFault, Typo, UnseenCategory

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
    "corrupt",
    "scale_records",
]
