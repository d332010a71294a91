"""Request targets (RFC 9112 3.2) of a batch, taken apart without a loop over rows: path, query, the authority of absolute ones.

The rare target with bytes that are no text is made text one by one. It names nothing and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.sources.http.authority import DEFAULT_PORTS
from otel_ebpf_receiver.sources.http.record import matrix
from otel_ebpf_receiver.telemetry.columns import I64, U8, U64, Bools, Records

AUTHORITY = 64
SCHEMES = tuple(DEFAULT_PORTS)
"""What `Targets.scheme` counts: those of which a port is known, and which metrics tell apart. Any other is a larger number."""
OTHER = len(SCHEMES)


def _table(characters: str) -> Bools:
    """Of each byte whether it is one of these."""
    table = np.zeros(256, bool)
    table[list(characters.encode())] = True
    return table


_COLON = np.frombuffer(b"://", np.uint8)
_LETTER = _table("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_IN_SCHEME = _LETTER | _table("0123456789+-.")
Picked = npt.NDArray[np.intp] | slice


class Form(IntEnum):
    """How a target is written."""

    ORIGIN = 0
    ABSOLUTE = 1
    AUTHORITY = 2
    ASTERISK = 3


@dataclass(frozen=True, slots=True)
class Targets:
    """Of n rows: the path (u8, n x 8k, zero behind `path_lengths`), where the query begins in `whole`, and what an absolute target named.

    `whole` is path and query; `query` is the place behind the `?`, 0: none. `is_cut_path`: the kept part ends inside the path. An authority that was
    cut is longer than `authority` is wide. `scheme`: see `SCHEMES`; `others`: texts of the others.
    """

    form: U8
    path: U8
    path_lengths: I64
    whole: U8
    whole_lengths: I64
    query: I64
    is_cut_path: Bools
    authority: U8
    authority_lengths: I64
    scheme: U64
    others: Mapping[int, str]


def split(records: Records, rows: Picked = slice(None), *, cut: Bools, connect: Bools) -> Targets:
    """Targets of some rows of records that have `line`, `method_len` and `target_len`. Of these rows, `cut`: not all of it was kept; `connect`: in
    authority-form."""
    # hot: benchmarks/pipeline.py
    whole, lengths = _targets(records, rows)
    n = len(lengths)
    form = np.zeros(n, np.uint8)
    authority, authority_lengths = np.zeros((n, 0), np.uint8), np.zeros(n, np.int64)
    scheme, others = np.zeros(n, np.uint64), dict[int, str]()
    odd = np.flatnonzero((whole[:, 0] != ord("/")) | connect)
    if odd.size:
        authority = np.zeros((n, AUTHORITY), np.uint8)
        sizes, scheme[odd] = _schemes(whole[odd], connect[odd], others)
        form[odd] = _forms(whole[odd], lengths[odd], connect[odd], sizes > 0)
        is_absolute = form[odd] == Form.ABSOLUTE
        absolute, starts = odd[is_absolute], sizes[is_absolute] + len(_COLON)
        authority_lengths[absolute] = _take_authority(whole, lengths, absolute, starts, cut[absolute], authority)
        named = np.flatnonzero(form == Form.AUTHORITY)
        width = min(AUTHORITY, whole.shape[1])
        authority[named, :width], authority_lengths[named] = whole[named, :width], lengths[named]
        whole[named], lengths[named] = 0, 0
    whole, lengths = as_text(whole, lengths)
    path, path_lengths, query = _path(whole, lengths)
    return Targets(form, path, path_lengths, whole, lengths, query, cut & (query == 0), authority, authority_lengths, scheme, others)


def odd(first: U64, method_lengths: npt.NDArray[np.uint8], *, connect: Bools) -> npt.NDArray[np.intp]:
    """The few rows whose target is no path, or whose method is so long that it is not told by the first word of the line."""
    # hot: benchmarks/cpu.py
    behind = first >> 8 * (method_lengths.astype(np.uint64) + 1)
    is_odd: Bools = behind.astype(np.uint8) != ord("/")
    is_odd |= connect
    return is_odd.nonzero()[0]


def _targets(records: Records, rows: Picked) -> tuple[U8, I64]:
    """The targets, aligned to the left: each line shifted by its method and the space behind it."""
    # hot: benchmarks/pipeline.py
    raw, methods = matrix(records, "line"), records["method_len"][rows].astype(np.int64)
    kept = raw.shape[1]
    lengths = np.minimum(records["target_len"][rows].astype(np.int64), np.maximum(kept - methods - 1, 0))
    count = max(1, (int(lengths.max(initial=1)) + 7) // 8)
    # One word more than is needed, so that there is something to shift in.
    columns = np.zeros((count + 1, len(methods)), np.uint64)
    there = min(kept // 8, count + 1)
    columns[:there] = raw[:, : 8 * there].view(np.uint64)[rows].T
    right = (8 * (methods + 1) & 63).astype(np.uint64)
    # A shift by a whole word is none: GET to DELETE are shorter, all others are moved apart.
    shifted = (columns[:-1] >> right) | (columns[1:] << (np.uint64(64) - right & np.uint64(63)))
    out = np.ascontiguousarray(shifted.T).view(np.uint8)
    for method in np.flatnonzero(np.bincount(methods[methods >= 7])).tolist():
        long = np.flatnonzero(methods == method)
        line = raw[rows][long, method + 1 : method + 1 + 8 * count]
        out[long] = 0
        out[long, : line.shape[1]] = line
    return out, lengths


def _begins(rows: U8, text: bytes) -> Bools:
    """Rows that begin with `text`, in any case."""
    if rows.shape[1] < len(text):
        return np.zeros(len(rows), bool)
    wanted = np.frombuffer(text, np.uint8)
    letters = (wanted >= ord("a")) & (wanted <= ord("z"))
    same: Bools = ((rows[:, : len(text)] | np.where(letters, 0x20, 0).astype(np.uint8)) == wanted).all(axis=1)
    return same


def _schemes(rows: U8, connect: Bools, others: dict[int, str]) -> tuple[I64, U64]:
    """How long the scheme is of targets that begin with one and `://` (RFC 3986 3.1), 0: none; and which. Those that are not known are added to `others`."""
    sizes, schemes = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.uint64)
    for number, name in enumerate(SCHEMES[:2]):
        here = _begins(rows, name.encode() + b"://") & ~connect
        sizes[here], schemes[here] = len(name), number
    left = np.flatnonzero((sizes == 0) & ~connect)
    if left.size:
        found = _scheme_lengths(rows[left])
        sizes[left] = found
        # Rare; one by one.
        for row in left[found > 0].tolist():
            schemes[row] = _number(rows[row, : sizes[row]].tobytes().decode().lower(), others)
    return sizes, schemes


def _number(name: str, others: dict[int, str]) -> int:
    if name in SCHEMES:
        return SCHEMES.index(name)
    number = hash(name) & 0xFFFFFFFFFFFFFFFF | 1 << 63
    others[number] = name
    return number


def _scheme_lengths(rows: U8) -> I64:
    width = rows.shape[1]
    ends = (~_IN_SCHEME[rows]).argmax(axis=1)
    at = ends[:, None] + np.arange(len(_COLON))
    behind = np.take_along_axis(rows, np.minimum(at, width - 1), axis=1) == _COLON
    is_scheme = behind.all(axis=1) & (at[:, -1] < width) & _LETTER[rows[:, 0]]
    return np.where(is_scheme, ends, 0)


def _forms(whole: U8, lengths: I64, connect: Bools, absolute: Bools) -> U8:
    asterisk = (lengths == 1) & (whole[:, 0] == ord("*"))
    return np.select([connect, absolute, asterisk], [Form.AUTHORITY, Form.ABSOLUTE, Form.ASTERISK], Form.ORIGIN).astype(np.uint8)


def _take_authority(whole: U8, lengths: I64, rows: npt.NDArray[np.intp], start: I64, cut: Bools, authority: U8) -> I64:
    """Moves the authority of absolute targets out; what is left is the path and query, `/` where there is none. Returns its lengths."""
    if not rows.size:
        return np.zeros(0, np.int64)
    width = whole.shape[1]
    column = np.arange(width)
    mine = whole[rows]
    ends = ((mine == ord("/")) | (mine == ord("?")) | (mine == 0)) & (column >= start[:, None])
    stop = np.where(ends.any(axis=1), ends.argmax(axis=1), lengths[rows])
    stop = np.minimum(stop, lengths[rows])
    named = _shifted(mine, start, stop)
    sizes = stop - start
    # Credentials in a URL are secrets and no part of the server's name (RFC 9110 4.2.4).
    at = np.where((named == ord("@")).any(axis=1), width - (named[:, ::-1] == ord("@")).argmax(axis=1), 0)
    named, sizes = _shifted(named, at, sizes), sizes - at
    authority[rows, : min(width, AUTHORITY)] = named[:, :AUTHORITY]
    rest = _shifted(mine, stop, lengths[rows])
    left = lengths[rows] - stop
    missing = rest[:, 0] != ord("/")
    if missing.any():
        rest[missing, 1:] = rest[missing, :-1]
        rest[missing, 0] = ord("/")
        left = left + missing
    whole[rows], lengths[rows] = rest, left
    # What was cut inside of the authority may be a part of its credentials.
    return np.where(cut & ~ends.any(axis=1), AUTHORITY + 1, sizes)


def _shifted(rows: U8, start: I64, stop: I64) -> U8:
    """Columns `start` to before `stop` of each row, at its left, zero behind."""
    at = start[:, None] + np.arange(rows.shape[1])
    out = np.take_along_axis(rows, np.minimum(at, rows.shape[1] - 1), axis=1)
    out[at >= stop[:, None]] = 0
    return out


def _path(whole: U8, lengths: I64) -> tuple[U8, I64, I64]:
    query = np.zeros(len(lengths), np.int64)
    marks = np.flatnonzero(whole.ravel() == ord("?"))
    if not marks.size:
        return whole, lengths, query
    rows, columns = np.divmod(marks[::-1], whole.shape[1])
    # Of several marks in a row the first counts: it is written last.
    query[rows] = columns + 1
    place = np.where(query > 0, query - 1, lengths)
    width = max(8, (int(place.max()) + 7) // 8 * 8)
    path = whole[:, :width] * (np.arange(width, dtype=np.uint16) < place.astype(np.uint16)[:, None])
    return path, place, query


def as_text(matrix: U8, lengths: I64) -> tuple[U8, I64]:
    """The same with every row valid UTF-8 without NUL: what is not becomes U+FFFD. Widens the matrix where that needs it."""
    if matrix.max(initial=0) < 0x80 and int(np.count_nonzero(matrix)) == int(lengths.sum()):
        return matrix, lengths
    bad = np.flatnonzero((matrix >= 0x80).any(axis=1) | (np.count_nonzero(matrix, axis=1) != lengths))
    texts = [matrix[row, : lengths[row]].tobytes().decode("utf-8", "replace").replace("\0", "\ufffd").encode() for row in bad.tolist()]
    width = max(matrix.shape[1], (max(map(len, texts)) + 7) // 8 * 8)
    out = np.zeros((len(matrix), width), np.uint8)
    out[:, : matrix.shape[1]] = matrix
    out[bad] = np.array(texts, f"S{width}").view(np.uint8).reshape(len(bad), width)
    lengths = lengths.copy()
    lengths[bad] = list(map(len, texts))
    return out, lengths
