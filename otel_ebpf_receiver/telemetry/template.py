"""What in a path is a variable: numbers, UUIDs, hashes and long tokens; said twice, for one path and for a matrix of paths.

Both forms follow the same table of rules and a test holds them together. A segment is what stands between slashes.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from otel_ebpf_receiver.telemetry.columns import I64, U8, Bools

_DIGIT, _HEX, _LETTER, _DASH, _MARK, _OTHER = 1, 2, 4, 8, 16, 32
_SLASH, _QUERY = ord("/"), ord("?")
_DASHES = (8, 13, 18, 23)
_UUID_BYTES, _MIXED_MIN, _LONG_MIN = 36, 16, 32
PLACEHOLDERS = ("", "{number}", "{uuid}", "{hash}", "{token}")
"""By kind of segment; 0 is a plain word. In a shape a byte of the kind's value stands for the segment."""


def _classes() -> U8:
    table = np.full(256, _OTHER, np.uint8)
    for characters, bit in ((b"0123456789", _DIGIT), (b"abcdefABCDEF", _HEX), (b"-", _DASH), (b"._~%=,:+@!", _MARK), (b"/", 0)):
        table[list(characters)] = bit
    table[list(b"ghijklmnopqrstuvwxyzGHIJKLMNOPQRSTUVWXYZ")] = _LETTER
    return table


_TRANSLATE = _classes().tobytes()
"""The class of each byte."""


_RULES = (
    (PLACEHOLDERS[1], re.compile(rb"(?=.*[0-9])[-0-9._~%=,:+@!]+")),
    (PLACEHOLDERS[2], re.compile(rb"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}")),
    (PLACEHOLDERS[3], re.compile(rb"(?=.*[0-9])[0-9A-Fa-f]{16,}")),
    (PLACEHOLDERS[4], re.compile(rb"[-0-9A-Za-z._~%=,:+@!]{32,}|(?=.*[0-9])(?=.*[A-Za-z])[-0-9A-Za-z._~%=,:+@!]{16,}")),
)
"""The same rules, the first that holds, for one segment."""


def _kind(bits: int, size_class: int, dashed: bool) -> int:
    has_digit, has_letter = bits & _DIGIT > 0, bits & (_HEX | _LETTER) > 0
    if has_digit and not bits & ~(_DIGIT | _DASH | _MARK):
        return 1
    if dashed and not bits & ~(_DIGIT | _HEX | _DASH):
        return 2
    if has_digit and not bits & ~(_DIGIT | _HEX) and size_class >= 1:
        return 3
    is_token = size_class >= 2 or (size_class == 1 and has_digit and has_letter)
    return 4 if is_token and not bits & _OTHER else 0


_KINDS = np.array([_kind(bits, row % 3, row >= 3) for row in range(6) for bits in range(64)], np.uint8)
"""The kind by a UUID's dashes (0, 1), class of size (0 to 2) and classes of characters (0 to 63)."""
_KINDS.flags.writeable = False


def text(path: bytes, *, is_cut: bool = False) -> str:
    """The template of one path that starts with a slash. Of a cut one the last segment is unknown, and so is what follows."""
    segments = path.split(b"/")[1:]
    out = [_segment(segment) for segment in segments]
    if is_cut:
        out[-1] = "**"
    return "/" + "/".join(out)


def _segment(segment: bytes) -> str:
    for placeholder, pattern in _RULES:
        if pattern.fullmatch(segment):
            return placeholder
    return segment.decode("utf-8", "replace")


def skeletons(texts: U8) -> tuple[U8, Bools]:
    """Texts (n x 8k, zero behind each) that hold a path, up to the first `?`, with each digit as zero; and for which rows that tells enough.

    It does where the text is ASCII and digits fill the segments of the path that they are in: rows of equal skeleton and length then have equal
    templates. Most paths are so, and this is done in a tenth of the time.
    """
    # hot: benchmarks/pipeline.py. A byte compared with another costs a tenth of a byte that is moved.
    flat, width = texts.ravel(), texts.shape[1]
    is_digit = (flat - np.uint8(ord("0")) < 10).view(np.uint8)
    is_edge = (flat == _SLASH).view(np.uint8)
    is_edge |= (flat == 0).view(np.uint8)
    # 1 for a digit, 0 for what may not stand beside it, 2 for what may.
    place = is_edge + is_edge
    place += is_digit
    beside = np.flatnonzero(place[1:] + place[:-1] == 1)
    # Of several marks in a row the first counts: it is written last.
    marks = np.flatnonzero(flat == _QUERY)[::-1]
    ends = np.full(len(texts), width)
    rows, columns = np.divmod(marks, width)
    ends[rows] = columns
    rows, columns = np.divmod(beside, width)
    is_told = np.ones(len(texts), bool)
    is_told[rows[columns + 1 < ends[rows]]] = False
    if flat.max(initial=0) >= 0x80:
        is_told[(texts >= 0x80).any(axis=1)] = False
    is_digit -= 1  # zero where there is one, else all bits
    return (flat & is_digit).reshape(texts.shape), is_told


def shapes(paths: U8, lengths: I64) -> U8:
    """The paths (n x width, each starting with a slash) with each variable segment replaced by one byte; equal for paths of equal template."""
    # hot: benchmarks/pipeline.py
    column = np.arange(paths.shape[1], dtype=np.uint16)
    flat = paths[column < lengths.astype(np.uint16)[:, None]]
    starts = np.flatnonzero(flat == _SLASH)
    sizes = np.diff(starts, append=len(flat))
    bits = np.bitwise_or.reduceat(np.frombuffer(flat.tobytes().translate(_TRANSLATE), np.uint8), starts)
    kinds = _kinds(bits, sizes - 1, _dashed(flat, starts, sizes))
    variable = np.flatnonzero(kinds)
    keep = np.repeat(kinds == 0, sizes)
    first = starts[variable]
    keep[first] = True
    keep[first + 1] = True
    flat[first + 1] = kinds[variable]
    row_starts = np.cumsum(lengths) - lengths
    owner = np.searchsorted(row_starts, first, side="right") - 1
    # Of a variable segment its slash and one byte are kept.
    gone = np.bincount(owner, sizes[variable] - 2, len(lengths))
    kept = lengths - gone.astype(np.int64)
    out = np.zeros_like(paths)
    out[column < kept.astype(np.uint16)[:, None]] = flat[keep]
    return out


def _kinds(bits: U8, sizes: I64, dashed: Bools) -> U8:
    """The kind of each segment, from the classes of its characters, its size, and whether it has a UUID's dashes."""
    row = (sizes >= _MIXED_MIN).astype(np.int64) + (sizes >= _LONG_MIN) + 3 * dashed
    return _KINDS.take((row << 6) + bits)


def _dashed(flat: U8, starts: npt.NDArray[np.intp], sizes: I64) -> Bools:
    out = np.zeros(len(starts), bool)
    rows = np.flatnonzero(sizes == _UUID_BYTES + 1)
    if rows.size:
        out[rows] = np.all([flat[starts[rows] + 1 + place] == ord("-") for place in _DASHES], axis=0)
    return out
