"""Damage to a file that can be taken back bit by bit, whoever dies in between.

What is needed for it is on disk, synced, before anything is done. Every undo looks at digests: a file that is as
it was is left alone, one that is as the fault left it is put back, and one that is neither is somebody else's.
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
"""Folder of MONKEYPROOF_HOME."""
MISSING = ""
"""Digest of a file that is not there."""
NEITHER = "is neither as it was nor as the fault left it: somebody else changed it, and it is left as it is"


@dataclass(frozen=True, slots=True)
class Kept:
    """A file's bytes as they were, to be saved before they are changed."""

    path: Path
    copy: Path
    digest: str

    def save(self) -> None:
        """Copy them into the harness's home, and sync them.

        Raises:
            Refusal: the disk does not take them, so nothing may be changed.
            TargetError: the file has changed since it was looked at.
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
                f"{self.path} cannot be copied to {self.copy} ({error.strerror or error}), so there would be "
                "no way back",
                "make room on the disk, or move MONKEYPROOF_HOME",
            ) from None
        if digest_of(self.copy) != self.digest:
            self.copy.unlink(missing_ok=True)
            raise TargetError(f"{self.path} is being changed by somebody else at this moment")

    def arguments(self, after: str) -> dict[str, Json]:
        """For ``put_back_file``; ``after`` is the digest as the fault leaves it."""
        return {"path": str(self.path), "kept": str(self.copy), "before": self.digest, "after": after}


def keep(path: Path) -> Kept:
    """Ready to be saved; nothing is done yet. Raises TargetError if the file cannot be read."""
    return Kept(path, paths.home() / KEPT / f"{uuid.uuid4().hex}.bytes", digest_of(path))


def digest_now(path: Path) -> str:
    """``MISSING`` for a file that is not there."""
    return digest_of(path) if path.exists() else MISSING


def write_whole(path: Path, content: bytes) -> None:
    """Put a file in place in one step, synced: whoever reads it sees the old bytes or the new ones."""
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
    """Beside the file, under a name that whoever undoes this knows: who is killed over it leaves it there."""
    return path.with_name(f".monkeyproof-{path.name}")


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_back_file(target: Target, path: str, kept: str, before: str, after: str) -> str:  # noqa: ARG001
    """Undo of whatever replaced, cut or removed a file. Idempotent.

    Args:
        kept: where its bytes are, as they were.
        before: their digest.
        after: the digest as the fault left it; "" for a file that it took away.

    Raises:
        TargetError: what was kept is gone or damaged, or the disk does not take it.
    """
    place, copy = Path(path), Path(kept)
    _draft_of(place).unlink(missing_ok=True)
    now = digest_now(place)
    if now == before:
        copy.unlink(missing_ok=True)
        return f"{place.name} is as it was already"
    if now != after:
        return f"{place} {NEITHER}{f'; the bytes of before are in {copy}' if copy.exists() else ''}"
    if not copy.exists() or digest_of(copy) != before:
        raise TargetError(f"{place} cannot be put back: the bytes that were kept in {copy} are gone or damaged")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, copy.read_bytes())
    except OSError as error:
        raise TargetError(f"{place} cannot be put back ({error.strerror or error})") from None
    if digest_of(place) != before:
        raise TargetError(f"{place} was put back, and is not what it was")
    copy.unlink(missing_ok=True)
    return f"{place.name} is as it was again ({before[:12]}...)"


def put_back_bits(
    target: Target,  # noqa: ARG001
    path: str,
    bits: Sequence[int],
    old: str,
    before: str,
    after: str,
) -> str:
    """Undo of flipped bits, also where the fault or an earlier undo ended half-way. Idempotent.

    Args:
        bits: which, counted from the first byte's least significant one.
        old: the bytes that hold them, each once, as they were; hexadecimal.
        before: the file's digest before the fault.
        after: and as the fault left it.

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
        raise TargetError(f"{place}: bits were flipped back, and it is not what it was")
    return f"{place.name} is as it was again ({before[:12]}...)"


def places_of(bits: Sequence[int]) -> list[int]:
    """The bytes that hold some bits, each once, in order."""
    return sorted({bit >> 3 for bit in bits})


def old_bytes(path: Path, bits: Sequence[int]) -> bytes:
    """What stands there now. Raises TargetError if the file cannot be read."""
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
    """The digest of a file with other bytes at some places; "" if it is too short to have them, or is gone."""
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
