"""What this kernel, these privileges and this bcc allow: facts are gathered here, and judged by a pure function that knows each remedy.

It loads nothing and attaches nothing.
"""

from __future__ import annotations

import enum
import os
import re
import resource
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from otel_ebpf_receiver.errors import PreflightError

CAPABILITIES = {"NET_RAW": 13, "SYS_ADMIN": 21, "SYS_RESOURCE": 24, "PERFMON": 38, "BPF": 39}
OLDEST = (5, 10)
MEMORY_CGROUP = (5, 11)
"""From here on maps are charged to the memory cgroup instead of RLIMIT_MEMLOCK."""
MEMORY_LOCK_BYTES = 256 << 20
ARCHITECTURE = "x86_64"
BCC_PACKAGE = "python3-bpfcc"
SYSTEM_PYTHON = "/usr/bin/python3"
BCC_TIMEOUT_S = 20.0


class Verdict(enum.Enum):
    """What a finding means for the agent."""

    OK = "ok"
    WARNING = "warning"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Finding:
    """One row: what was looked at, what was found, and what to do about it."""

    subject: str
    found: str
    verdict: Verdict = Verdict.OK
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found on this machine. `bcc` is a version, or empty with `bcc_error` saying why; both empty: not asked."""

    release: str
    machine: str
    capabilities: frozenset[str]
    in_user_namespace: bool = False
    memory_lock: int = resource.RLIM_INFINITY
    memory_lock_most: int = resource.RLIM_INFINITY
    jit: str = ""
    bcc: str = ""
    bcc_error: str = ""

    @property
    def kernel(self) -> tuple[int, int]:
        """Major and minor version."""
        found = re.match(r"(\d+)\.(\d+)", self.release)
        return (int(found[1]), int(found[2])) if found else (0, 0)


@dataclass(frozen=True, slots=True)
class Bcc:
    """The version of bcc under the system's interpreter, or why there is none."""

    version: str = ""
    error: str = ""


def find_bcc(python: str = SYSTEM_PYTHON) -> Bcc:
    """Asks the system's interpreter, as the compile child runs under it."""
    command = [python, "-I", "-c", "import bcc; print(bcc.__version__)"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BCC_TIMEOUT_S, check=False, env={"PATH": os.defpath})
    except FileNotFoundError:
        return Bcc(error=f"no interpreter {python!r}")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Bcc(error=f"{python!r} cannot be asked: {error}")
    if done.returncode == 0 and done.stdout.strip():
        return Bcc(version=done.stdout.strip())
    return Bcc(error=(done.stderr.strip().splitlines() or ["says nothing"])[-1][:200])


def gather(bcc: Bcc = Bcc(), root: Path = Path("/")) -> Facts:
    """Facts about this process and its kernel."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    name = os.uname()
    return Facts(
        release=name.release,
        machine=name.machine,
        capabilities=capabilities(_text(root / "proc/self/status")),
        in_user_namespace=_text(root / "proc/self/uid_map").split() not in ([], ["0", "0", "4294967295"]),
        memory_lock=soft,
        memory_lock_most=hard,
        jit=_text(root / "proc/sys/net/core/bpf_jit_enable").strip(),
        bcc=bcc.version,
        bcc_error=bcc.error,
    )


def capabilities(status: str) -> frozenset[str]:
    """Names of the effective capabilities of interest, from the text of /proc/self/status."""
    found = re.search(r"^CapEff:\s*([0-9a-fA-F]+)", status, re.MULTILINE)
    bits = int(found[1], 16) if found else 0
    return frozenset(name for name, bit in CAPABILITIES.items() if bits >> bit & 1)


def judge(facts: Facts, *, any_architecture: bool = False) -> list[Finding]:
    """Every finding, refused or not."""
    return [
        _kernel(facts),
        _architecture(facts, any_architecture),
        *_privileges(facts),
        _memory_lock(facts),
        _jit(facts),
        *_bcc(facts),
    ]


def require(findings: Iterable[Finding]) -> None:
    """Raises `PreflightError` naming everything that keeps the agent from running, with its remedy."""
    refused = [f"{one.subject}: {one.found}; {one.remedy}" for one in findings if one.verdict is Verdict.REFUSED]
    if refused:
        raise PreflightError("\n".join(refused))


def format_table(rows: Iterable[Iterable[str]], heads: Iterable[str]) -> str:
    """Rows of text as aligned columns under `heads`."""
    cells = [[*heads], *([*row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _kernel(facts: Facts) -> Finding:
    if facts.kernel < OLDEST:
        return Finding(
            "kernel", facts.release, Verdict.REFUSED, "run Linux 5.10 or newer (BPF ring buffer, tail calls in programs with functions)"
        )
    return Finding("kernel", facts.release)


def _architecture(facts: Facts, any_architecture: bool) -> Finding:
    if facts.machine == ARCHITECTURE:
        return Finding("architecture", facts.machine)
    remedy = f"only {ARCHITECTURE} is tested; --force-architecture runs it all the same"
    return Finding("architecture", facts.machine, Verdict.WARNING if any_architecture else Verdict.REFUSED, remedy)


def _privileges(facts: Facts) -> Iterable[Finding]:
    held = facts.capabilities
    remedies = {
        "BPF": "add CAP_BPF (or run as root): it loads the programs",
        "NET_RAW": "add CAP_NET_RAW (or run as root): it opens packet sockets",
        "PERFMON": "add CAP_PERFMON (or run as root): without it the verifier refuses the parser",
    }
    for name, remedy in remedies.items():
        implied = name != "NET_RAW" and "SYS_ADMIN" in held
        if name in held or implied:
            yield Finding(f"CAP_{name}", "held" if name in held else "held by CAP_SYS_ADMIN")
        else:
            yield Finding(f"CAP_{name}", "missing", Verdict.REFUSED, remedy)
    if facts.in_user_namespace:
        yield Finding(
            "user namespace", "not the initial one", Verdict.REFUSED, "run it outside: capabilities of a user namespace do not allow bpf()"
        )


def _memory_lock(facts: Facts) -> Finding:
    if facts.kernel >= MEMORY_CGROUP:
        return Finding("memory lock", "not needed: maps are charged to the memory cgroup")
    if facts.memory_lock == resource.RLIM_INFINITY:
        return Finding("memory lock", "unlimited")
    if facts.capabilities & {"SYS_RESOURCE"} or facts.memory_lock_most == resource.RLIM_INFINITY:
        return Finding("memory lock", "is raised at the start")
    if facts.memory_lock_most >= MEMORY_LOCK_BYTES:
        return Finding("memory lock", f"is raised to {facts.memory_lock_most >> 20} MiB at the start")
    remedy = "ulimit -l unlimited, LimitMEMLOCK=infinity, or CAP_SYS_RESOURCE: before Linux 5.11 maps count as locked memory"
    return Finding("memory lock", f"{facts.memory_lock_most >> 10} KiB", Verdict.REFUSED, remedy)


def raise_memory_lock() -> None:
    """Take what the kernel lets us take; where that is too little, loading says so."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    for wanted in ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, wanted)
        except (OSError, ValueError):
            continue
        return


def _jit(facts: Facts) -> Finding:
    if facts.jit == "0":
        remedy = "sysctl net.core.bpf_jit_enable=1: the kernel's interpreter takes no tail calls in programs with functions"
        return Finding("BPF JIT", "off", Verdict.REFUSED, remedy)
    return Finding("BPF JIT", "on" if facts.jit else "unknown")


def _bcc(facts: Facts) -> Iterable[Finding]:
    if facts.bcc:
        yield Finding("bcc", facts.bcc)
    elif facts.bcc_error:
        yield Finding("bcc", facts.bcc_error, Verdict.REFUSED, f"apt-get install {BCC_PACKAGE}")
