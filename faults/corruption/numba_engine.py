"""The same bytes as ``corruption.matrix``, sooner: missing and scale, compiled by numba (an extra).

A block is walked, then some of its rows are copied and changed while they are near. Compiled functions let go of
the interpreter, so several threads can do so at once. Whatever else there is to do is handed on to numpy.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# What numba compiles is typed by numba.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from monkeyproof.faults.corruption import matrix
from monkeyproof.faults.corruption.cell_selection import BLOCK_ROWS, REST, gaps_of
from monkeyproof.faults.corruption.cells import CellFault, Missing, Scale
from monkeyproof.faults.corruption.matrix import Change, Journal, journal_of
from monkeyproof.faults.corruption.memory import Workspace
from monkeyproof.faults.corruption.random import GOLDEN, Bools, Index, Key, Rows, of_purpose, words_of

_G = np.uint64(GOLDEN)
_CHUNK_CELLS = np.int64(1 << 15)
"""What is copied and changed at a time, while it is near."""
_COLUMNS_MAX = 256
"""More have no room near a core."""
_MISSING, _SCALE = 0, 1


@intrinsic
def _copy(typingctx, to, at, source, begin, count):  # noqa: ARG001
    """``to[at:at + count] = source[begin:begin + count]`` by the machine's own memcpy, which is quicker."""
    sig = types.void(to, at, source, begin, count)

    def codegen(context, builder, signature, args):  # noqa: ARG001
        def address(kind, value, index):
            array = context.make_array(kind)(context, builder, value)
            return builder.gep(array.data, [index])

        cgutils.raw_memcpy(builder, address(to, args[0], args[1]), address(source, args[2], args[3]), args[4], 8)
        return context.get_dummy_value()

    return sig, codegen


@numba.njit(inline="always")
def _mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit(inline="always")
def _unit(z):
    return np.float64(np.int64(_mix(z) >> np.uint64(12))) * 2.0**-52


@numba.njit(nogil=True, cache=True)
def _walk(line, table, rest, rest_word, until, stops, gaps):
    """Stops of one block, counted from 0, up to ``until``; returns how many."""
    at, count, step = np.int64(-1), np.uint64(0), np.uint64(0)
    low = np.uint64(0xFFFF)
    while at < until:
        for word in range(len(gaps) // 4):
            drawn, place = _mix(line + (step // np.uint64(4) + np.uint64(word + 1)) * _G), np.uint64(4 * word)
            gaps[place] = table[drawn & low]
            gaps[place + np.uint64(1)] = table[(drawn >> np.uint64(16)) & low]
            gaps[place + np.uint64(2)] = table[(drawn >> np.uint64(32)) & low]
            gaps[place + np.uint64(3)] = table[drawn >> np.uint64(48)]
        for gap in gaps:
            far = np.int64(gap)
            if far == 0:
                again = _mix(_mix(line + rest_word) + step * _G)
                far = np.int64(1) + np.searchsorted(rest, again, side="right")
            at += far
            step += np.uint64(1)
            if at >= until:
                break
            stops[count] = at
            count += np.uint64(1)
    return count


@numba.njit(nogil=True, cache=True)
def _work(
    values,
    source,
    width,
    columns,
    lines,
    words,
    again,
    table,
    rest,
    rest_word,
    block_rows,
    share,
    first,
    begin,
    done,
    kind,
    low,
    span,
    cells,
    old,
):
    """Rows from ``begin`` on, as many as the journal has room for, after the ``done`` cells that it holds.

    Numbers that other modules hold are given to it, for what numba keeps on disk knows of this file only.
    Returns the row that comes next, and how many cells the journal holds.
    """
    n, end = len(columns), len(values) // width
    rows_most = min(block_rows, first % block_rows + end)
    stops = np.empty((n, rows_most), np.int32)
    factors = np.empty((n, rows_most if kind == _SCALE else 0), np.float64)
    gaps = np.empty(4 * (np.int64(block_rows * share) // 4 + 16), np.uint16)
    counts, nexts = np.empty(n, np.uint64), np.empty(n, np.uint64)
    chunk = max(1, _CHUNK_CELLS // width)
    one, done, at = np.uint64(1), np.uint64(done), begin
    while at < end:
        block = np.uint64((first + at) // block_rows)
        block_at = np.int64(block) * block_rows - first
        stop = min(end, block_at + block_rows)
        for c in range(n):
            counts[c] = _walk(_mix(lines[c] + block * _G), table, rest, rest_word, stop - block_at, stops[c], gaps)
            nexts[c] = 0
            while nexts[c] < counts[c] and block_at + stops[c, nexts[c]] < at:
                nexts[c] += one
            if kind == _SCALE:
                base, its_stops, its_factors = words[c] + block * np.uint64(block_rows) * _G, stops[c], factors[c]
                for k in range(counts[c]):
                    its_factors[k] = _unit(base + np.uint64(its_stops[k]) * _G) * span + low
        if done + counts.sum() > len(cells):
            break
        while at < stop:
            until = min(stop, at + chunk)
            if len(source):
                _copy(values, at * width, source, at * width, (until - at) * width)
            for c in range(n):
                k, its_stops, before = nexts[c], stops[c], np.int32(until - block_at)
                base = np.uint64(block_at * width + columns[c])
                while k < counts[c] and its_stops[k] < before:
                    cell = base + np.uint64(its_stops[k]) * np.uint64(width)
                    was = values[cell]
                    if kind == _MISSING:
                        fits = was == was
                        if fits:
                            values[cell] = np.nan
                    else:
                        new = factors[c, k] * was
                        if not np.isfinite(new) or new == was:
                            place = again[c] + (block * np.uint64(block_rows) + np.uint64(its_stops[k])) * _G
                            new = _mended(was, place, low, span)
                        values[cell] = new
                        fits = np.isfinite(was)
                    cells[done], old[done] = cell, was
                    done += np.uint64(fits)
                    k += one
                nexts[c] = k
            at = until
    return at, np.int64(done)


@numba.njit(nogil=True, cache=True)
def _mended(was, place, low, span):
    """Where a factor does not do: as in ``Scale.new``."""
    if not np.isfinite(was):
        return was
    offset = _unit(place) * span + low
    found = was + (1.0 if offset == 0 else offset)
    return -was if not np.isfinite(found) or found == was else found


def corrupt_matrix(
    out: NDArray[Any],
    source: NDArray[Any] | None,
    fault: CellFault,
    keys: Sequence[Key],
    columns: Index,
    rows: Rows,
    allowed: Bools | None = None,
    *,
    workspace: Workspace,
) -> Change:
    """As ``matrix.corrupt_matrix``."""
    gaps = gaps_of(float(fault.share))
    fits = type(fault) in (Missing, Scale) and fault.where is None and gaps.keep == 1 and out.dtype == np.float64
    if (
        not fits
        or len(keys) > _COLUMNS_MAX
        or rows.scattered is not None
        or (source is not None and not source.flags.c_contiguous)
    ):
        return matrix.corrupt_matrix(out, source, fault, keys, columns, rows, allowed, workspace=workspace)
    count, width = out.shape
    words, lines = words_of(keys), np.array([key.gaps for key in keys], np.uint64)
    scale = fault if isinstance(fault, Scale) else Scale(share=1)
    cells, old = journal_of(count * len(keys) * fault.share, out.dtype, workspace)
    at = done = 0
    while True:
        at, done = _work(
            out.reshape(-1), np.empty(0) if source is None else source.reshape(-1), width, columns,
            lines, words + of_purpose(1), words + of_purpose(2), gaps.table, gaps.rest,
            np.uint64(REST), BLOCK_ROWS, gaps.share,
            rows.first, at, done, _SCALE if isinstance(fault, Scale) else _MISSING,
            float(scale.low), float(scale.high - scale.low), cells, old,
        )  # fmt: skip
        if at >= count:
            return Change(Journal(width, cells[:done], old[:done]))
        # Room for a whole block more, so that it goes on.
        more = len(cells) // 8 + min(BLOCK_ROWS, rows.first % BLOCK_ROWS + count) * len(keys)
        cells = np.concatenate([cells[:done], np.empty(more, np.int64)])
        old = np.concatenate([old[:done], np.empty(more)])
