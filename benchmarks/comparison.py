"""The agent beside others on the same load: httpry, tshark with fields, and bcc's own HTTP socket filter (http-parse-simple) as Debian ships it.

    scripts/bench comparison         or: python benchmarks/comparison.py [--rounds N] [--seconds N]

nginx behind a veth, wrk on kept connections as fast as it goes; each watches the veth, alone, in rounds that alternate. What each has seen is what
it wrote by 3 s after the load. Missing programs are installed by `scripts/setup packages`; bcc's example names kernel headers of which it
needs nothing: empty ones, beside the agent's own stubs, make it run where there are none. Its files are used unchanged.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks._stage import TAP, Stage, Watcher, agent, empty_filter, exchanges, sink, stage, started
from benchmarks.machine import describe, median

EXAMPLE = Path("/usr/share/doc/bpfcc-tools/examples/networking/http_filter")
ROOT = Path(__file__).parents[1]
EMPTY_HEADERS = ("net/sock.h", *(f"uapi/linux/{name}.h" for name in ("if_ether", "ip", "ipv6", "tcp", "udp", "icmp")))
CATCH_UP_S, START_S = 3.0, 4.0
PATH = b"/api/v1/users/123"


@dataclass(frozen=True, slots=True)
class Seen:
    """Of one round: requests wrk completed, the rate, what was seen (None: nobody looked) and the watcher's CPU."""

    sent: int
    per_s: float
    seen: int | None
    cpu_s: float


Watching = contextlib.AbstractContextManager[tuple[Watcher, Callable[[], int]]]


@contextlib.contextmanager
def writing(
    command: list[str], file: Path, *, env: dict[str, str] | None = None, cwd: str | None = None
) -> Iterator[tuple[Watcher, Callable[[], int]]]:
    """A program that writes a line per request to a file."""
    with file.open("wb") as out, started(command, env=env, out=out.fileno(), cwd=cwd) as running:
        time.sleep(START_S)
        if running.process.poll() is not None:
            raise SystemExit(f"ended at once: {' '.join(command)}")
        yield running, lambda: file.read_bytes().count(PATH)


@contextlib.contextmanager
def ours(where: Stage) -> Iterator[tuple[Watcher, Callable[[], int]]]:
    with agent(where) as running:
        yield running, lambda: exchanges(where)


@contextlib.contextmanager
def bcc_example(where: Stage, folder: Path) -> Iterator[tuple[Watcher, Callable[[], int]]]:
    headers = folder / "headers"
    if not headers.exists():
        shutil.copytree(ROOT / "bpf" / "include", headers / "include")
        for name in EMPTY_HEADERS:
            (headers / "include" / name).parent.mkdir(exist_ok=True)
            (headers / "include" / name).touch()
    env = {"PATH": os.environ["PATH"], "BCC_KERNEL_SOURCE": str(headers), "PYTHONIOENCODING": "latin-1"}
    command = where.host.command("/usr/bin/python3", str(EXAMPLE / "http-parse-simple.py"), "-i", TAP)
    with writing(command, folder / "bcc", env=env, cwd=str(EXAMPLE)) as running:
        yield running


def watchers(where: Stage, folder: Path) -> dict[str, Callable[[], Watching]]:
    """By name, those that are there."""
    fields = "-n -l -Y http.request -T fields -e frame.time_epoch -e ip.src -e http.host -e http.request.method -e http.request.uri"
    found: dict[str, Callable[[], Watching]] = {"this agent": lambda: ours(where)}
    if shutil.which("httpry"):
        command = where.host.command("httpry", "-i", TAP, "-p", "-q", "-f", "timestamp,source-ip,method,host,request-uri", "-m", "get")
        found["httpry"] = lambda: writing(command, folder / "httpry")
    if shutil.which("tshark"):
        found["tshark, fields"] = lambda: writing(where.host.command("tshark", "-i", TAP, *fields.split()), folder / "tshark")
    if EXAMPLE.is_dir():
        found["bcc http-parse-simple"] = lambda: bcc_example(where, folder)
    return found


def once(where: Stage, watching: Callable[[], Watching], seconds: int) -> Seen:
    with watching() as (running, count):
        before, cpu_s = count(), running.cpu_s()
        load = where.load(seconds)
        time.sleep(CATCH_UP_S)
        return Seen(load.requests, load.per_s, count() - before, running.cpu_s() - cpu_s)


def alone(where: Stage, seconds: int, *, filtered: bool) -> Seen:
    with empty_filter(where) if filtered else contextlib.nullcontext():
        load = where.load(seconds)
    return Seen(load.requests, load.per_s, None, 0.0)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=int, default=4)
    options = arguments.parse_args()
    subprocess.run([ROOT / "scripts" / "setup", "packages", "httpry", "tshark", "bpfcc-tools"], check=False)
    print(describe())
    with stage() as where, sink(where), tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        found: dict[str, list[Seen]] = {}
        where.load(1)
        for _ in range(options.rounds):
            found.setdefault("without", []).append(alone(where, options.seconds, filtered=False))
            found.setdefault("empty filter", []).append(alone(where, options.seconds, filtered=True))
            for name, watching in watchers(where, Path(folder)).items():
                found.setdefault(name, []).append(once(where, watching, options.seconds))
    show(found, options.rounds, options.seconds)


def show(found: dict[str, list[Seen]], rounds: int, seconds: int) -> None:
    print(f"\nmedians of {rounds} alternated rounds of {seconds} s")
    print(f"{'':24}{'requests/s':>11}{'ratio':>7}{'seen / sent':>24}{'share':>8}{'CPU us a request sent':>23}")
    for name, ran in found.items():
        ratio = median([one.per_s / base.per_s for one, base in zip(ran, found["without"], strict=True)])
        line = f"{name:24}{median([one.per_s for one in ran]):11,.0f}{ratio:7.3f}"
        if ran[0].seen is not None:
            seen, sent = sum(one.seen or 0 for one in ran), sum(one.sent for one in ran)
            line += f"{f'{seen:,} / {sent:,}':>24}{seen / sent:8.4f}{sum(one.cpu_s for one in ran) / sent * 1e6:23.2f}"
        print(line)
    if "bcc http-parse-simple" not in found:
        print(f"bcc's example is not there ({EXAMPLE}, package bpfcc-tools): not compared")


if __name__ == "__main__":
    main()
