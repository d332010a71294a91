"""The `ot` member of `tracestate`: read `th` and `rv`, write `th` (OpenTelemetry: TraceState probability sampling).

Plain Python on one text; callers see to it that each distinct text is read once.
"""

from __future__ import annotations

from dataclasses import dataclass

THRESHOLD_MAX = 1 << 56
_DIGITS = 14
_MEMBER = "ot"


@dataclass(frozen=True, slots=True)
class TraceState:
    """Other vendors' members in order, and ours taken apart. -1: absent or invalid."""

    others: tuple[str, ...] = ()
    threshold: int = -1
    randomness: int = -1
    rest: tuple[str, ...] = ()

    def text(self, threshold: int = -1) -> str:
        """As a header: our member first, as it is the one that was changed last (W3C Trace Context 3.5)."""
        ours = list(self.rest)
        if self.randomness >= 0:
            ours.insert(0, f"rv:{self.randomness:014x}")
        if 0 <= threshold < THRESHOLD_MAX:
            ours.insert(0, f"th:{_hex(threshold)}")
        members = ([f"{_MEMBER}={';'.join(ours)}"] if ours else []) + list(self.others)
        return ",".join(members)


def parse(header: bytes, *, is_cut: bool = False) -> TraceState:
    """Reads a header. Of one that was cut the last member is left out, for it may be half of one (W3C Trace Context 3.3.1.5)."""
    members = [member.strip() for member in header.decode("ascii", "replace").split(",")]
    if is_cut:
        members.pop()
    others: list[str] = []
    ours = ""
    for member in members:
        name, equals, value = member.partition("=")
        if name == _MEMBER and equals:
            ours = value
        elif equals and "\ufffd" not in member:
            others.append(member)
    threshold = randomness = -1
    rest: list[str] = []
    for part in ours.split(";") if ours else []:
        if part.startswith("th:"):
            threshold = _threshold(part[3:])
        elif part.startswith("rv:"):
            randomness = _randomness(part[3:])
        else:
            rest.append(part)
    return TraceState(tuple(others), threshold, randomness, tuple(rest))


def _hex(threshold: int) -> str:
    return f"{threshold:014x}".rstrip("0") or "0"


def _is_hex(text: str) -> bool:
    return bool(text) and all(character in "0123456789abcdefABCDEF" for character in text)


def _threshold(text: str) -> int:
    return int(text, 16) << 4 * (_DIGITS - len(text)) if len(text) <= _DIGITS and _is_hex(text) else -1


def _randomness(text: str) -> int:
    return int(text, 16) if len(text) == _DIGITS and _is_hex(text) else -1
