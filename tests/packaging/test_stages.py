"""A stage of continuous integration that runs out of time passes only if nothing had failed in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HANGS = "exec sleep 60"
FAILS = "echo; echo 'FAILED tests/a.py::test_b - assert 1 == 2'; exit 1"


def bash(script: str, log: Path, seconds: int) -> tuple[str, str]:
    """Output of a script after `.ci/stages`, and its last line: how it went."""
    script = f"set -uo pipefail; seconds={seconds} log={log}; . .ci/stages; {script} && echo passed || echo failed"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=True)
    *lines, last = done.stdout.splitlines()
    return "\n".join(lines), last


@pytest.mark.parametrize(
    ("stage", "seconds", "told", "how"),
    [
        pytest.param("true", 600, "== fake", "passed", id="passes"),
        pytest.param(FAILS, 600, "test_b", "failed", id="fails"),
        pytest.param("echo no test at all; exit 3", 600, "no test", "failed", id="fails without a test"),
        pytest.param(f"echo one passed; {HANGS}", 1, "NOT FINISHED: fake", "passed", id="no time, nothing failed"),
        pytest.param(f"echo 'FAILED a.py::b'; {HANGS}", 1, "FAILED: fake, before", "failed", id="no time, a test failed"),
        pytest.param(f"echo 'ERROR a.py::b'; {HANGS}", 1, "NOT FINISHED: fake", "failed", id="no time, a test had an error"),
        pytest.param(f"echo 'FAILED: kernel 5.10 (exit 1)'; {HANGS}", 1, "NOT FINISHED: fake", "failed", id="no time, a kernel failed"),
    ],
)
def test_what_failed_before_the_time_was_up_fails(tmp_path: Path, stage: str, seconds: int, told: str, how: str) -> None:
    """How each stage counts, and what is said of it."""
    out, last = bash(f'when_time fake 0 bash -c "{stage}"', tmp_path / "log", seconds)

    assert last == how
    assert told in out


def test_a_stage_without_time_is_not_run_and_named_at_the_end() -> None:
    """Of a stage that needs more minutes than are left nothing runs."""
    out, last = bash('when_time fake 2 echo ran; echo "left out: ${unfinished[*]}"', Path("/dev/null"), 60)

    assert (out, last) == ("== fake\nNOT RUN: fake, 1 minutes are left\nleft out: fake", "passed")


@pytest.mark.parametrize(
    ("second", "seconds", "how"),
    [
        pytest.param("true", 600, "passed", id="passes then"),
        pytest.param("false", 600, "failed", id="fails again"),
        pytest.param(HANGS, 2, "failed", id="no time to see"),
    ],
)
def test_what_failed_is_asked_once_more(tmp_path: Path, second: str, seconds: int, how: str) -> None:
    """A second failure is one, and so is a second try that does not end."""
    out, last = bash(f'when_time fake 0 bash -c "{FAILS}" || again fake bash -c "{second}"', tmp_path / "log", seconds)

    assert last == how
    assert "== fake: AGAIN, what failed\nFAILED tests/a.py::test_b" in out


def test_a_failure_is_known_before_pytest_ends(tmp_path: Path) -> None:
    """A run that hangs behind a failed test, and takes no interrupt, is a failure when the time is up."""
    (tmp_path / "test_it.py").write_text(
        "import signal, time\ndef test_fails(): assert 0\ndef test_hangs():\n    signal.signal(signal.SIGINT, signal.SIG_IGN)\n    time.sleep(60)\n"
    )
    pytest_ = f"{sys.executable} -m pytest -p tests.conftest -p no:cacheprovider --rootdir {tmp_path} {tmp_path}"

    out, last = bash(
        f"timeout() {{ command timeout --signal=INT --kill-after=1 4 ${{@:4}}; }}; when_time fake 0 {pytest_}", tmp_path / "log", 5
    )

    assert last == "failed"
    assert "FAILED test_it.py::test_fails, call" in out


@pytest.mark.parametrize(
    ("told", "names"),
    [
        pytest.param(
            "ok: kernel 6.1, after 9 s\nFAILED: kernel 5.10 (exit 1), after 9 s\nFAILED: kernel 7.x (exit 124), after 9 s",
            "5.10 7.x",
            id="two",
        ),
        pytest.param("FAILED: llvm19\nFAILED tests/kernels/guest_ipvs.py::test_x - assert", "", id="something else"),
    ],
)
def test_kernels_that_failed_are_told_by_name(tmp_path: Path, told: str, names: str) -> None:
    """What `scripts/kernels` is asked for the second time; without a name it is asked for all."""
    (tmp_path / "log").write_text(told)

    out, last = bash("echo $(kernels_that_failed)", tmp_path / "log", 600)

    assert (out, last) == (names, "passed")
