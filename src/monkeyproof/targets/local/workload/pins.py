"""Pins: replicas of the embedded target that serve one version of the model, whatever the registry says.

Every replica reads the file before it asks the registry; a replica that it does not name has no pin.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from monkeyproof.errors import TargetError
from monkeyproof.record.history import write_json

PINS_FILE = "pins.json"


def read_pins(path: Path) -> Mapping[str, str]:
    """Version, by replica.

    Raises:
        TargetError: the file is there and cannot be read.
    """
    try:
        return {str(name): str(version) for name, version in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise TargetError(f"{path}: cannot be read ({error})") from None


class LocalPins:
    """``port.Pins``."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PINS_FILE

    def pinned(self) -> Mapping[str, str]:
        return read_pins(self._path)

    def pin(self, replica: str, version: str) -> None:
        write_json(self._path, {**self.pinned(), replica: version})

    def unpin(self, replica: str) -> None:
        left = {name: version for name, version in self.pinned().items() if name != replica}
        write_json(self._path, left)
