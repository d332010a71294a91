r"""Cases on disk: what two sides say, and which exchanges come of it. A folder holds files, a file holds cases.

    === name
    What holds, in a sentence or two.
    @ ipv6                          a setting (see `SETTINGS`)
    > GET / HTTP/1.1\r\n            the client says this in one segment; `<` the server; escapes as in C, \{300:text} repeats
    >| Host: a\r\n\r\n              goes on in the same segment
    ~< bytes                        the tap does not see them, the other side gets them; `~~<`: nobody does, until `! server resend`
    ! client fin                    what a side does (see `VERBS`)
    = GET / 200 host=a              an exchange that must be reported; `?`: one that may be. What is named outweighs what the bytes say
    + resync_gap 1                  by how much a counter of the kernel grows when the case runs whole

The truth of every field that is not named comes from the reference parser, so that a case and the parser hold each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.wire.exchange import CLIENT, SERVER

SETTINGS = {"ipv6", "no-handshake", "wrap", "ip-options", "tcp-options", "tag", "two-tags", "extensions", "skip", "long", "no-reference"}
"""`skip MODE: reason` leaves a mode out; `long`: cut at chosen bytes, not at every one; `no-reference`: beyond the reference parser."""
VERBS = {"fin", "rst", "ack", "probe", "again", "resend", "syn", "reconnect", "wild", "say-fin", "say-rst"}
MODES = ("whole", "bytes", "cut", "twice", "padded", "trailing")
SIDE = {"client": CLIENT, "server": SERVER, ">": CLIENT, "<": SERVER}


class CaseError(Exception):
    """A case file is not well formed."""


@dataclass(frozen=True, slots=True)
class Act:
    """One thing a side does: `say`, `unseen` (reaches the other side), `lost` (does not), or a verb."""

    side: int
    verb: str
    data: bytes = b""
    number: int = 0


@dataclass(slots=True)
class Expected:
    """One expected exchange as it is written down."""

    method: bytes
    target: bytes
    status: int
    fields: dict[str, str]
    must: bool


@dataclass(slots=True)
class Case:
    """One case; `skips` maps a mode to the reason for leaving it out."""

    name: str
    where: str
    about: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    skips: dict[str, str] = field(default_factory=dict)
    acts: list[Act] = field(default_factory=list)
    expected: list[Expected] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)

    @property
    def lossy(self) -> bool:
        """Does the tap miss anything?"""
        return "no-handshake" in self.settings or any(act.verb in ("unseen", "lost", "wild") for act in self.acts)


def unescape(text: str) -> bytes:
    r"""Bytes of an escaped text; \{300:ab} is 300 times `ab`."""
    out = re.sub(r"\\\{(\d+):((?:\\.|[^}\\])*)\}", lambda m: m[2] * int(m[1]), text)
    return re.sub(rb"\\(x[0-9a-fA-F]{2}|.)", _escape, out.encode("utf-8"))


def _escape(match: re.Match[bytes]) -> bytes:
    what = match[1]
    if what[:1] == b"x" and len(what) == 3:
        return bytes((int(what[1:], 16),))
    plain = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\", b"}": b"}", b"s": b" "}
    if what not in plain:
        raise CaseError(f"unknown escape {match[0]!r}")
    return plain[what]


def _act(line: str) -> Act:
    words = line.split(" ", 3)
    if len(words) < 2 or words[0] not in SIDE or words[1] not in VERBS:
        raise CaseError(f"unknown act {line!r}; expected `client|server` and one of {sorted(VERBS)}")
    numbered = len(words) > 2 and re.fullmatch(r"[+-]?\d+", words[2]) is not None
    number = int(words[2]) if numbered else 0
    rest = words[3:] if numbered else words[2:]
    return Act(SIDE[words[0]], words[1], unescape(" ".join(rest)), number)


def _expected(line: str, *, must: bool) -> Expected:
    words = line.split()
    fields = dict(word.split("=", 1) for word in words[3:])
    return Expected(unescape(words[0]), unescape(words[1]), int(words[2]), fields, must)


def _setting(case: Case, line: str) -> None:
    name, _, rest = line.partition(" ")
    if name not in SETTINGS:
        raise CaseError(f"unknown setting {name!r}; expected one of {sorted(SETTINGS)}")
    if name == "skip":
        mode, _, reason = rest.partition(":")
        if mode not in MODES or not reason.strip():
            raise CaseError(f"{line!r}: expected `skip MODE: reason`, MODE one of {MODES}")
        case.skips[mode] = reason.strip()
    else:
        case.settings[name] = rest


def _line(case: Case, line: str) -> None:
    mark, _, rest = line.partition(" ")
    match mark:
        case "@":
            _setting(case, rest)
        case ">" | "<":
            case.acts.append(Act(SIDE[mark], "say", unescape(rest)))
        case ">|" | "<|":
            last = case.acts[-1]
            if last.side != SIDE[mark[0]] or last.verb not in ("say", "unseen", "lost"):
                raise CaseError(f"{line!r} goes on with nothing")
            case.acts[-1] = Act(last.side, last.verb, last.data + unescape(rest))
        case "~>" | "~<":
            case.acts.append(Act(SIDE[mark[1]], "unseen", unescape(rest)))
        case "~~>" | "~~<":
            case.acts.append(Act(SIDE[mark[2]], "lost", unescape(rest)))
        case "!":
            case.acts.append(_act(rest))
        case "=" | "?":
            case.expected.append(_expected(rest, must=mark == "="))
        case "+":
            name, _, by = rest.partition(" ")
            case.counters[name] = int(by)
        case _:
            if case.acts:
                raise CaseError(f"unknown line {line!r}")
            case.about += line + " "


def parse(text: str, where: str) -> Iterator[Case]:
    """The cases of one file."""
    case: Case | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("=== "):
            if case:
                yield case
            case = Case(line[4:].strip(), where)
        elif line.strip() and not line.startswith("#"):
            if case is None:
                raise CaseError(f"{where}:{number}: text before the first case")
            try:
                _line(case, line)
            except (CaseError, ValueError, IndexError) as error:
                raise CaseError(f"{where}:{number}: {error}") from error
    if case:
        yield case


def load(folder: Path) -> list[Case]:
    """All cases of a folder; their names are unique."""
    cases = [case for path in sorted(folder.glob("*.case")) for case in parse(path.read_text(encoding="utf-8"), path.stem)]
    names = [case.name for case in cases]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise CaseError(f"names used twice: {sorted(twice)}")
    return cases
