"""Faults of models and of the files that they are stored in."""

from __future__ import annotations

from monkeyproof.faults.models.artifacts import flip_bits, remove, truncate
from monkeyproof.faults.models.deployment import deploy_wrong_schema, deploy_wrong_version, promote_damaged_copy
from monkeyproof.faults.support.file_restore import put_back_bits, put_back_file

__all__ = [
    "deploy_wrong_schema",
    "deploy_wrong_version",
    "flip_bits",
    "promote_damaged_copy",
    "put_back_bits",
    "put_back_file",
    "remove",
    "truncate",
]
