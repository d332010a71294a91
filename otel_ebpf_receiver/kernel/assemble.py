"""Joins the C of the packet program and of the enabled sources into the one text that bcc compiles.

bcc rewrites map calls only in the main text, so nothing is included; `#line` markers keep messages true. Pure: reads no environment and
starts nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

CORE = ("limits.h", "net.h", "bytes.h", "counters.h", "flow.h", "maps.h")
ENTRY = "packet"
FUNCTIONS = ("pause",)
"""Those of the packet program itself."""
GATE = "gate"
"""What is attached where the entry itself is too large for a socket (bpf/gate.c)."""
HOOKS = {
    "on_syn": "struct __sk_buff *skb, struct segment *p",
    "on_ack": "struct __sk_buff *skb, struct segment *p",
    "on_segment": "struct __sk_buff *skb, struct flow *f, struct segment *p, u32 old, u32 gap",
    "on_end": "struct __sk_buff *skb, struct flow *f, struct segment *p",
    "on_datagram": "struct __sk_buff *skb, struct segment *p",
}
"""What a source may look at, and the C parameters: first SYNs, bare ACKs, payload in order (with the bytes of it seen before, and
those missing
before it), FIN and RST, UDP.
"""

FUNCTION = 0x7F000000
"""Number of the first function, where a helper's number stands in a call: bcc compiles no calls of functions, `compile.py` links them."""

_COUNTER = re.compile(r"\b(?:COUNT|OUTCOME)\((\w+)\)")


@dataclass(frozen=True, slots=True)
class KernelPart:
    """What a source adds to the kernel side, as data.

    `files` are relative to `bpf/` (or absolute): headers come before the packet program, `.c` files after it. `hooks` names entries of
    `HOOKS` that `<name>_<hook>` implements. An `owner` takes connections over by its first program; it implements `<name>_flow`,
    `_joined`, `_unseen`, `_end_unseen`, `_waits`, `_peeks`, `_segment` and `_end_of`. `functions` are written as programs that do not
    touch their argument; each is called as `call_<name>()`, and the verifier walks it once by itself, not at every call. `records` is
    the map that its records leave by, `counters` the header and the per-CPU map of its counters, `pending` the map of open requests
    with the offsets of its "sent" byte and of its start time, `maps` other maps that user space reads.
    """

    name: str
    files: tuple[str, ...]
    hooks: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    owner: bool = False
    records: str = ""
    counters: tuple[str, str] = ("", "")
    pending: tuple[str, int, int] = ("", 0, 0)
    maps: tuple[str, ...] = ()
    defines: Mapping[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KernelSource:
    """A source's C and what makes the dtype of its records: numpy is imported while the kernel side is loaded, no sooner."""

    part: KernelPart
    make_record: Callable[[], np.dtype[np.void]]

    @property
    def record(self) -> np.dtype[np.void]:
        """The dtype of its records."""
        return self.make_record()


@dataclass(frozen=True, slots=True)
class ProgramText:
    """The C text, the programs in the order of their slots (slot 0 is unused), the functions in the order of their numbers, and the
    names of each counter map's words.
    """

    text: str
    slots: tuple[str, ...]
    functions: tuple[str, ...]
    counters: Mapping[str, tuple[str, ...]]


def bpf_directory() -> Path:
    """The C sources: inside the installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "_bpf", package.parent / "bpf"):
        if (candidate / "packet.c").is_file():
            return candidate
    raise FileNotFoundError(f"no C sources in {package / '_bpf'} or {package.parent / 'bpf'}; install the package again")


def _counter_names(header: str) -> tuple[str, ...]:
    body = header[header.index("#define ") : header.index("enum {")]
    return tuple(name for name in _COUNTER.findall(body.split("\n", 1)[1]) if name != "name")


def _dispatch(parts: Iterable[KernelPart]) -> str:
    parts = tuple(parts)
    lines = []
    for hook, parameters in HOOKS.items():
        arguments = ", ".join(word.split()[-1].lstrip("*") for word in parameters.split(","))
        calls = " ".join(f"{part.name}_{hook}({arguments});" for part in parts if hook in part.hooks)
        lines.append(f"static __always_inline void {hook}({parameters}) {{ {calls} }}")
    owners = [part.name for part in parts if part.owner]
    owner = owners[0] if owners else None
    for name, kind, parameters, otherwise in (
        ("flow", "void", "struct flow *f", "f->verdict = OPAQUE_OTHER"),
        ("joined", "void", "struct direction *d", ""),
        ("unseen", "void", "struct direction *d", ""),
        ("end_unseen", "void", "struct direction *d", ""),
        ("waits", "u32", "struct direction *d", "return 0"),
        ("peeks", "u32", "struct direction *d", "return 0"),
    ):
        argument = parameters.rsplit("*", 1)[1]
        body = f"{'return ' if kind == 'u32' else ''}{owner}_{name}({argument})" if owner else otherwise
        own = "lost" if name == "unseen" else name
        lines.append(f"static __always_inline {kind} own_{own}({parameters}) {{ {body}; }}")
    room = f"return {owner}_room()" if owner else "u32 zero = 0; struct beginning *b = beginning.lookup(&zero); return b ? b->frame : 0"
    if not owner:
        lines.append("struct beginning { u8 frame[BEGINNING + HEADERS]; };\nBPF_PERCPU_ARRAY(beginning, struct beginning, 1);")
    lines.append(f"static __always_inline u8 *own_room(void) {{ {room}; }}")
    segment = "struct __sk_buff *skb, struct counters *c, struct flow *f, struct direction *d, struct direction *o, struct door *door,"
    segment += " struct flow_key *k, struct segment *p"
    lines.append(
        f"static __always_inline int own_segment({segment}) {{ {f'return {owner}_segment(skb, c, f, d, o, door, k, p)' if owner else 'return 0'}; }}"
    )
    end = "struct __sk_buff *skb, struct flow *f, struct direction *d, struct direction *o, struct flow_key *k, struct segment *p"
    lines.append(
        f"static __always_inline int own_end({end}) {{ {f'return {owner}_end_of(skb, f, d, o, k, p)' if owner else 'return 0'}; }}"
    )
    return "\n".join(lines) + "\n"


def assemble(parts: Iterable[KernelPart], defines: Mapping[str, int | str] | None = None, directory: Path | None = None) -> ProgramText:
    """The program text of `parts` with `defines` set before anything else.

    Raises FileNotFoundError when a file is missing, ValueError when two parts want to own connections or name a function alike.
    """
    parts = tuple(parts)
    if sum(part.owner for part in parts) > 1:
        raise ValueError("two sources want to own connections: " + ", ".join(part.name for part in parts if part.owner))
    functions = (*FUNCTIONS, *(function for part in parts for function in part.functions))
    if twice := {name for name in functions if functions.count(name) > 1}:
        raise ValueError("two sources name a function alike: " + ", ".join(sorted(twice)))
    base = directory or bpf_directory()
    slots = ("", *(program for part in parts for program in part.programs), ENTRY)
    settings: dict[str, int | str] = {name: value for part in parts for name, value in part.defines.items()} | dict(defines or {})
    pieces = [f"#define {name} {value}\n" for name, value in settings.items()]
    counters = {"counters": _counter_names((base / "counters.h").read_text())}

    def add(name: str) -> None:
        path = base / name
        pieces.append(f'#line 1 "{name}"\n{path.read_text()}\n')

    for name in CORE:
        add(name)
    pieces.append(
        "enum { " + ", ".join(f"PROGRAM_{name} = {slot}" for slot, name in enumerate(slots) if name) + " };\n" if len(slots) > 1 else ""
    )
    pieces.extend(f"static u32 (*call_{name})(void) = (void *){FUNCTION + number:#x};\n" for number, name in enumerate(functions))
    # `outcome` and `now_ns` are needed by owners, which come before the packet program.
    add("outcome.h")
    for part in parts:
        for name in part.files:
            if name.endswith(".h"):
                add(name)
        if part.counters[0]:
            counters[part.counters[1]] = _counter_names((base / part.counters[0]).read_text())
    pieces.append('#line 1 "dispatch (generated)"\n' + _dispatch(parts))
    add("packet.c")
    add("gate.c")
    for part in parts:
        for name in part.files:
            if name.endswith(".c"):
                add(name)
    return ProgramText("".join(pieces), slots, functions, counters)
