"""The scripts of the README: who may run them, and that a complete set-up is left alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file())
NOBODY = 65534


def test_run_without_root_says_what_is_needed() -> None:
    """`scripts/run` by another user ends with 77 and the remedy, having changed nothing."""
    # Read from standard input, since another user may not be able to enter the checkout's folder.
    with (ROOT / "scripts" / "run").open() as script:
        done = subprocess.run(["bash", "-s"], stdin=script, cwd="/", user=NOBODY, capture_output=True, text=True)

    assert done.returncode == 77
    assert "needs root" in done.stderr


@pytest.mark.parametrize("level", ["run", "dev"])
def test_complete_setup_is_left_alone(level: str) -> None:
    """A second set-up writes nothing, neither on the terminal nor into the environment."""
    subprocess.run([ROOT / "scripts" / "setup", level], check=True, capture_output=True)
    stamp = ROOT / ".venv" / f"{level}.stamp"
    before = stamp.stat().st_mtime_ns

    done = subprocess.run([ROOT / "scripts" / "setup", level], cwd="/", check=True, capture_output=True, text=True)

    assert done.stdout + done.stderr == ""
    assert stamp.stat().st_mtime_ns == before


def test_unknown_level_is_a_usage_error() -> None:
    """`scripts/setup` does not guess what an unknown word means."""
    done = subprocess.run([ROOT / "scripts" / "setup", "everything"], capture_output=True, text=True)

    assert done.returncode == 2
    assert "'everything'" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.name))
def test_script_can_be_run_and_says_what_for(script: Path) -> None:
    """Each script is executable and tells on its second line what it does."""
    first, second = script.read_text().splitlines()[:2]

    assert os.access(script, os.X_OK)
    assert first.startswith("#!/")
    assert second.startswith(("# ", '"""'))
