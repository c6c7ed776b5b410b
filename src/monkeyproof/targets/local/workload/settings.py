"""Settings files of the target's own processes: JSON, written by the supervisor, checked when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from monkeyproof.errors import UsageError

T = TypeVar("T")


def read_settings(kind: type[T], path: Path) -> T:
    """The file as ``kind``, a dataclass.

    Raises:
        UsageError: it is missing, or has a field that ``kind`` does not know.
    """
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{path}: {where}: {first['msg']}") from None
