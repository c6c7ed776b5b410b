"""Restores a damaged file bit by bit, also after the harness was killed at any moment.

The bytes that this needs are on disk, synced, before the file is changed. Every undo compares digests: it leaves a
file that is as it was before the fault, restores one that is as the fault left it, and reports any other as
changed by another program.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monkeyproof import paths
from monkeyproof.errors import Refusal, TargetError
from monkeyproof.faults.support.bitflips import Flips, digest_of, flip_in_file
from monkeyproof.targets.port import Target
from monkeyproof.types import Json

KEPT = "kept"
"""Folder of MONKEYPROOF_HOME that holds the backups."""
MISSING = ""
"""Digest of a file that is not there."""
NEITHER = "is neither as it was nor as the fault left it: another program changed it, and it is left as it is"


@dataclass(frozen=True, slots=True)
class FileBackup:
    """A backup of a file, to be saved before the file is changed."""

    path: Path
    copy: Path
    digest: str

    def save(self) -> None:
        """Copy the file into the harness's home, and sync the copy.

        Raises:
            Refusal: the copy cannot be written, so the file must not be changed.
            TargetError: the file has changed since its digest was taken.
        """
        self.copy.parent.mkdir(exist_ok=True, mode=0o700)
        try:
            with self.path.open("rb") as source, paths.open_private(self.copy) as file:
                shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self.copy.parent)
        except OSError as error:
            self.copy.unlink(missing_ok=True)
            raise Refusal(
                f"{self.path} cannot be copied to {self.copy} ({error.strerror or error}), so it could not be "
                "restored",
                "free space on the disk, or move MONKEYPROOF_HOME",
            ) from None
        if digest_of(self.copy) != self.digest:
            self.copy.unlink(missing_ok=True)
            raise TargetError(f"{self.path} is being changed by another program at this moment")

    def arguments(self, after: str) -> dict[str, Json]:
        """Arguments of ``restore_file``. ``after``: the digest as the fault leaves the file."""
        return {"path": str(self.path), "kept": str(self.copy), "before": self.digest, "after": after}


def back_up(path: Path) -> FileBackup:
    """A backup that is ready to be saved. Raises TargetError if the file cannot be read."""
    return FileBackup(path, paths.home() / KEPT / f"{uuid.uuid4().hex}.bytes", digest_of(path))


def digest_now(path: Path) -> str:
    """The digest of a file; ``MISSING`` if there is no such file."""
    return digest_of(path) if path.exists() else MISSING


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file in one step, synced: a reader sees the old bytes or the new ones."""
    mode = path.stat().st_mode & 0o7777 if path.exists() else 0o600
    draft = _draft_of(path)
    draft.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(mode)
        draft.rename(path)
        sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def _draft_of(path: Path) -> Path:
    """The path of the draft beside the file. The undo knows it, because a killed process leaves it there."""
    return path.with_name(f".monkeyproof-{path.name}")


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def restore_file(target: Target, path: str, kept: str, before: str, after: str) -> str:  # noqa: ARG001
    """Undo of a fault that replaced, cut or removed a file. Idempotent.

    Args:
        kept: path of the backup.
        before: digest of the backup.
        after: digest of the file as the fault left it; "" for a file that it removed.

    Raises:
        TargetError: the backup is missing or damaged, or the file cannot be written.
    """
    place, copy = Path(path), Path(kept)
    _draft_of(place).unlink(missing_ok=True)
    now = digest_now(place)
    if now == before:
        copy.unlink(missing_ok=True)
        return f"{place.name} is as it was already"
    if now != after:
        return f"{place} {NEITHER}{f'; its old bytes are in {copy}' if copy.exists() else ''}"
    if not copy.exists() or digest_of(copy) != before:
        raise TargetError(f"{place} cannot be restored: its backup {copy} is missing or damaged")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, copy.read_bytes())
    except OSError as error:
        raise TargetError(f"{place} cannot be restored ({error.strerror or error})") from None
    if digest_of(place) != before:
        raise TargetError(f"{place} was restored, and does not have its old digest")
    copy.unlink(missing_ok=True)
    return f"{place.name} is as it was again ({before[:12]}...)"


def restore_bits(
    target: Target,  # noqa: ARG001
    path: str,
    bits: Sequence[int],
    old: str,
    before: str,
    after: str,
) -> str:
    """Undo of flipped bits, also where the fault or an earlier undo was interrupted. Idempotent.

    Args:
        bits: indices of the bits, counted from the first byte's least significant one.
        old: the bytes that hold them, each once, as they were before the fault; hexadecimal.
        before: the file's digest before the fault.
        after: the digest as the fault left the file.

    Raises:
        TargetError: the file cannot be written.
    """
    place = Path(path)
    now = digest_now(place)
    if now == before:
        return f"{place.name} is as it was already"
    offsets = places_of(bits)
    if now == after:
        flip_in_file(place, Flips(np.asarray(bits, np.int64)))
    elif _with_bytes(place, offsets, bytes.fromhex(old)) == before:
        # Half-way: some bytes are flipped, some are not, and nothing else has changed.
        with place.open("r+b") as file:
            for offset, value in zip(offsets, bytes.fromhex(old), strict=True):
                file.seek(offset)
                file.write(bytes([value]))
            file.flush()
            os.fsync(file.fileno())
    else:
        return f"{place} {NEITHER}"
    if digest_of(place) != before:
        raise TargetError(f"{place}: its bits were flipped back, and it does not have its old digest")
    return f"{place.name} is as it was again ({before[:12]}...)"


def places_of(bits: Sequence[int]) -> list[int]:
    """The bytes that hold some bits, each once, in order."""
    return sorted({bit >> 3 for bit in bits})


def old_bytes(path: Path, bits: Sequence[int]) -> bytes:
    """The bytes that hold some bits, as they are now. Raises TargetError if the file cannot be read."""
    found = bytearray()
    try:
        with path.open("rb") as file:
            for offset in places_of(bits):
                file.seek(offset)
                found += file.read(1)
    except OSError as error:
        raise TargetError(f"{path}: cannot be read ({error.strerror})") from None
    return bytes(found)


def digest_with_flips(path: Path, bits: Sequence[int]) -> str:
    """The digest that a file will have, without changing it."""
    flipped = bytearray(old_bytes(path, bits))
    places = {offset: index for index, offset in enumerate(places_of(bits))}
    for bit in bits:
        flipped[places[bit >> 3]] ^= 1 << (bit & 7)
    return _with_bytes(path, list(places), bytes(flipped))


def _with_bytes(path: Path, offsets: Sequence[int], values: bytes) -> str:
    """The digest of a file with other bytes at some places; "" if it is too short to have them, or missing."""
    digest, at = hashlib.sha256(), 0
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for offset, value in zip(offsets, values, strict=True):
            left = offset - at
            while left and (chunk := file.read(min(left, 1 << 20))):
                digest.update(chunk)
                left -= len(chunk)
            if not file.read(1):
                return ""
            digest.update(bytes([value]))
            at = offset + 1
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        return digest.hexdigest()
    return ""
