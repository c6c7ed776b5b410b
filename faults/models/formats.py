"""Finds the weights in a model's file without loading it, since loading an unknown pickle runs its code."""

from __future__ import annotations

import json
import mmap
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from monkeyproof.errors import Refusal, UsageError
from monkeyproof.faults.support.bitflips import Flips, exponent_bits, random_bits

WHERE = ("any", "exponent")
MOST_BYTES = 2 * 1024**3
LEAST_ARRAY_BYTES = 64
ROUNDS = 50
BELOW = 2
"""Bound on the absolute value: the highest bit of the exponent is 0 below it. Larger weights would become tiny."""
LIKELY = (1e-12, 1e12)
"""Absolute values of trained weights lie between these. Integers, read as floats, lie far below."""
_HEADS = {"SHORT_BINBYTES": 2, "BINBYTES": 5, "BINBYTES8": 9, "BYTEARRAY8": 9}
"""Opcodes of pickle that carry bytes, and how many bytes precede the payload."""
_SAFETENSORS = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}

Array = tuple[int, int, str]
"""First byte, number of bytes, and numpy's name of the type."""


def choose_bits(path: Path, count: int, where: str, rng: np.random.Generator) -> Flips:
    """``count`` different bits of a file.

    Args:
        where: ``any`` bit, or the highest ``exponent`` bit of one weight each that is below 2 in size: of float64,
            0.5 becomes 1e308, and 1 or more becomes infinite or no number.

    Raises:
        UsageError: there is no such place, or there are not so many bits.
        Refusal: the file is too large, or its weights were not found.
    """
    if where not in WHERE:
        raise UsageError(f"where: {where!r} is not one of {', '.join(WHERE)}")
    if path.stat().st_size > MOST_BYTES:
        raise Refusal(f"{path.name} is larger than {MOST_BYTES} bytes", "flip bits of a smaller one")
    if not path.stat().st_size:
        raise UsageError(f"{path}: the file is empty")
    # Mapped, not read: no copy is made of a large model.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as content:
        if where == "any":
            return random_bits(content, count, rng)
        arrays = weights_in(content)
        if not arrays:
            raise Refusal(
                f"no weights were found in {path.name}: they are looked for in pickle, npy and safetensors files",
                "use where: any",
            )
        return _among(content, arrays, count, rng)


def weights_in(content: mmap.mmap) -> list[Array]:
    """Arrays of floats in a file: safetensors, npy, or anything of which pickle's opcodes can be read."""
    for find in (_safetensors, _npy, _pickle):
        content.seek(0)
        if found := list(find(content)):
            return found
    return []


def _among(content: mmap.mmap, arrays: list[Array], count: int, rng: np.random.Generator) -> Flips:
    """The highest exponent bit of ``count`` weights below 2 in size, each as likely; nothing is copied."""
    kinds = [np.dtype(kind) for _, _, kind in arrays]
    ends = np.cumsum([length // kind.itemsize for (_, length, _), kind in zip(arrays, kinds, strict=True)])
    within = [_highest_bit(kind) for kind in kinds]
    found: dict[int, None] = {}
    for _ in range(ROUNDS):
        for place in rng.integers(0, ends[-1], 4 * min(count, int(ends[-1]))):
            which = int(np.searchsorted(ends, place, side="right"))
            kind = kinds[which]
            begin = arrays[which][0] + kind.itemsize * (int(place) - int(ends[which - 1] if which else 0))
            if 0 < abs(np.frombuffer(content[begin : begin + kind.itemsize], kind)[0]) < BELOW:
                found[8 * begin + within[which]] = None
        if len(found) >= count:
            return Flips(np.sort(np.array(list(found)[:count], np.int64)))
    raise UsageError(f"bits: {count} weights below {BELOW} are needed, and about {len(found)} were found")


def _highest_bit(kind: np.dtype[np.generic]) -> int:
    """Of the exponent, within one number as it is stored."""
    one = np.zeros(1, kind)
    return int(exponent_bits(one, 1, np.random.default_rng(0), bit={2: 4, 4: 7, 8: 10}[kind.itemsize]).bits[0])


def _safetensors(content: mmap.mmap) -> Iterator[Array]:
    size = int.from_bytes(content[:8], "little")
    if not 2 <= size <= len(content) - 8 or content[8:9] != b"{":
        return
    try:
        header = json.loads(content[8 : 8 + size])
        for name, one in header.items():
            if name != "__metadata__" and one["dtype"] in _SAFETENSORS:
                begin, end = one["data_offsets"]
                if 0 <= begin < end <= len(content) - 8 - size:
                    yield 8 + size + begin, end - begin, _SAFETENSORS[one["dtype"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return


def _npy(content: mmap.mmap) -> Iterator[Array]:
    if content[:6] != b"\x93NUMPY":
        return
    try:
        major, _ = np.lib.format.read_magic(content)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        _, _, kind = read(content)
    except ValueError:
        return
    begin = content.tell()
    if kind.kind == "f" and kind.itemsize in (2, 4, 8):
        yield begin, (len(content) - begin) // kind.itemsize * kind.itemsize, kind.str


def _pickle(content: mmap.mmap) -> Iterator[Array]:
    """Bytes that resemble trained float64, or float32, weights."""
    try:
        for opcode, argument, position in pickletools.genops(cast("IO[bytes]", content)):
            head = _HEADS.get(opcode.name)
            if head is None or not isinstance(argument, bytes | bytearray) or len(argument) < LEAST_ARRAY_BYTES:
                continue
            for kind in ("<f8", "<f4"):
                if len(argument) % np.dtype(kind).itemsize == 0 and _are_plausible(np.frombuffer(argument, kind)):
                    yield (position or 0) + head, len(argument), kind
                    break
    except ValueError:  # No pickle, or joblib's, in which arrays stand between the opcodes.
        return


def _are_plausible(values: NDArray[np.floating]) -> bool:
    sizes = np.abs(values[values != 0])
    return bool(len(sizes) and np.isfinite(sizes).all() and sizes.min() > LIKELY[0] and sizes.max() < LIKELY[1])
