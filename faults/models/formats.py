"""Where in a model's file its weights lie, found without loading it: loading a stranger's pickle runs his code."""

from __future__ import annotations

import io
import json
import pickletools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monkeyproof.errors import Refusal, UsageError
from monkeyproof.faults.weights import Flips, exponent_bits, random_bits

WHERE = ("any", "exponent")
MOST_BYTES = 2 * 1024**3
LEAST_ARRAY_BYTES = 64
LIKELY = (1e-12, 1e12)
"""Between these, in size, lie weights that were trained. Integers, read as floats, lie far below."""
_HEADS = {"SHORT_BINBYTES": 2, "BINBYTES": 5, "BINBYTES8": 9, "BYTEARRAY8": 9}
"""Of opcodes of pickle that bring bytes: so many bytes stand before them."""
_SAFETENSORS = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}

Array = tuple[int, int, str]
"""First byte, number of bytes, and numpy's name of the type."""


def choose_bits(path: Path, count: int, where: str, rng: np.random.Generator) -> Flips:
    """``count`` different bits of a file.

    Args:
        where: ``any`` bit, or the highest ``exponent`` bit of one weight each: of float64, 0.5 becomes 1e308.

    Raises:
        UsageError: there is no such place, or there are not so many bits.
        Refusal: the file is too large, or nobody knows where its weights are.
    """
    if where not in WHERE:
        raise UsageError(f"where: {where!r} is not one of {', '.join(WHERE)}")
    if path.stat().st_size > MOST_BYTES:
        raise Refusal(f"{path.name} is larger than {MOST_BYTES} bytes", "flip bits of a smaller one")
    content = path.read_bytes()
    if where == "any":
        return random_bits(bytearray(content), count, rng)
    arrays = weights_in(content)
    if not arrays:
        raise Refusal(
            f"no weights were found in {path.name}: they are looked for in pickle, npy and safetensors files",
            "use where: any",
        )
    return _among(content, arrays, count, rng)


def weights_in(content: bytes) -> list[Array]:
    """Arrays of floats in a file: safetensors, npy, or anything of which pickle's opcodes can be read."""
    for find in (_safetensors, _npy, _pickle):
        if found := list(find(content)):
            return found
    return []


def _among(content: bytes, arrays: list[Array], count: int, rng: np.random.Generator) -> Flips:
    sizes = np.array([length // np.dtype(kind).itemsize for _, length, kind in arrays])
    if not 0 < count <= sizes.sum():
        raise UsageError(f"bits: {count} is not in 1 to {sizes.sum()}, which is how many weights there are")
    # So many of each array, as if all were one.
    shares = rng.multivariate_hypergeometric(sizes, count)
    bits: list[NDArray[np.int64]] = []
    for (begin, length, kind), share in zip(arrays, shares, strict=True):
        if share:
            weights = np.frombuffer(bytearray(content[begin : begin + length]), kind)
            highest = {2: 4, 4: 7, 8: 10}[weights.dtype.itemsize]
            bits.append(8 * begin + exponent_bits(weights, int(share), rng, bit=highest).bits)
    return Flips(np.sort(np.concatenate(bits)))


def _safetensors(content: bytes) -> Iterator[Array]:
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


def _npy(content: bytes) -> Iterator[Array]:
    if not content.startswith(b"\x93NUMPY"):
        return
    file = io.BytesIO(content)
    try:
        major, _ = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        _, _, kind = read(file)
    except ValueError:
        return
    begin = file.tell()
    if kind.kind == "f" and kind.itemsize in (2, 4, 8):
        yield begin, (len(content) - begin) // kind.itemsize * kind.itemsize, kind.str


def _pickle(content: bytes) -> Iterator[Array]:
    """Bytes that look like trained float64, or float32, weights."""
    try:
        for opcode, argument, position in pickletools.genops(content):
            head = _HEADS.get(opcode.name)
            if head is None or not isinstance(argument, bytes | bytearray) or len(argument) < LEAST_ARRAY_BYTES:
                continue
            for kind in ("<f8", "<f4"):
                if len(argument) % np.dtype(kind).itemsize == 0 and _look_trained(np.frombuffer(argument, kind)):
                    yield (position or 0) + head, len(argument), kind
                    break
    except ValueError:  # No pickle, or joblib's, in which arrays stand between the opcodes.
        return


def _look_trained(values: NDArray[np.floating]) -> bool:
    sizes = np.abs(values[values != 0])
    return bool(len(sizes) and np.isfinite(sizes).all() and sizes.min() > LIKELY[0] and sizes.max() < LIKELY[1])
