"""What a start and a burst needed is given back, and nothing that is still used."""

from __future__ import annotations

import hashlib
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from otel_ebpf_receiver import memory
from otel_ebpf_receiver.agent.slack import FEW, QUIET_S, Slack
from tests.agent.process import environment

CODE = re.compile(r"^\S+ r-xp \S+ \S+ (?!0 )\d+ .*\n(?:(?!\S+-\S+ ).*\n)*?Rss: +(\d+) kB", re.MULTILINE)


def resident_code_kib() -> int:
    """Of this process, as far as it comes from files."""
    return sum(map(int, CODE.findall(Path("/proc/self/smaps").read_text())))


def test_code_that_is_not_needed_any_more_is_not_resident() -> None:
    """Of what many imports have run less than half comes back, and what is called afterwards works."""
    before = resident_code_kib()

    memory.forget_start()
    after = resident_code_kib()

    assert 0 < after < before / 2
    assert hashlib.sha256(b"").hexdigest().startswith("e3b0c442")
    assert re.fullmatch("a+", "aaa")


def test_another_c_library_is_no_error() -> None:
    """Where the C library knows none of these calls, nothing happens."""
    lines = "import ctypes; ctypes.CDLL = lambda name: object()", "from otel_ebpf_receiver import memory"
    calls = "memory.tune(); memory.give_back(); memory.forget_start()"

    subprocess.run([sys.executable, "-c", "; ".join((*lines, calls))], check=True, timeout=30)


def started_once(mode: str, folder: Path, **variables: str) -> str:
    """What a program sees after it asked for large pages, where the kernel's mode is this one."""
    (folder / "mode").write_text(mode)
    lines = (
        "import os, sys; from otel_ebpf_receiver import memory",
        f"memory._LARGE_PAGES = {str(folder / 'mode')!r}",
        "memory.in_large_pages()",
        "print(memory.was_restarted(), os.environ.get('GLIBC_TUNABLES'), sys.argv[1:])",
    )
    command = [sys.executable, "-c", "; ".join(lines), "an argument"]
    return subprocess.run(command, env=environment() | variables, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def test_a_program_is_started_once_more_for_large_pages(tmp_path: Path) -> None:
    """Only where the kernel gives them to who asks, only once, with the same arguments, beside what the user has told malloc."""
    asked = "glibc.malloc.hugetlb=1"

    assert started_once("always [madvise] never", tmp_path) == f"True {asked} ['an argument']"
    assert started_once("always [madvise] never", tmp_path, GLIBC_TUNABLES="glibc.malloc.check=0") == (
        f"True glibc.malloc.check=0:{asked} ['an argument']"
    )
    assert started_once("always [madvise] never", tmp_path, GLIBC_TUNABLES="glibc.malloc.hugetlb=0") == (
        "False glibc.malloc.hugetlb=0 ['an argument']"
    )
    assert (
        started_once("[always] madvise never", tmp_path) == started_once("always madvise [never]", tmp_path) == "False None ['an argument']"
    )


@pytest.mark.parametrize(
    ("drains", "times"),
    [
        pytest.param([4000] * 50, 0, id="load that stays"),
        pytest.param([4000] * 20 + [0] * 50, 1, id="load that ends"),
        pytest.param([4000] * 20 + [FEW] * 50, 1, id="load that falls"),
        pytest.param(([4000] + [0] * 10) * 5, 0, id="short pauses"),
        pytest.param(([4000] + [0] * 50) * 3, 3, id="several bursts"),
        pytest.param([FEW - 1] * 100, 0, id="never much"),
    ],
)
def test_memory_is_given_back_once_after_each_burst(drains: list[int], times: int) -> None:
    """So often are holes in the heap looked for, by what each drain finds, ten drains a second."""
    calls: list[float] = []
    slack = Slack(lambda: calls.append(now_s))
    for number, taken in enumerate(drains):
        now_s = 100 + number / 10

        slack.look(taken, now_s)

    assert len(calls) == times
    assert all(later - earlier > QUIET_S for earlier, later in itertools.pairwise(calls))


def test_numpy_has_no_threads_of_its_own() -> None:
    """The command line says so before numpy is imported; as a library beside others, nothing is decided for them."""
    count = "import numpy, os; print(len(os.listdir('/proc/self/task')))"
    command = f"from otel_ebpf_receiver.cli import main\ntry: main(['--version'])\nexcept SystemExit: pass\n{count}"

    ran = subprocess.run([sys.executable, "-c", command], env=environment(), capture_output=True, text=True, check=True, timeout=60)

    assert ran.stdout.split()[-1] == "1"
