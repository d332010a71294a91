"""A real server as a child process in a namespace: started, waited for until it is ready, killed, started again where it was."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.agent.process import ROOT
from tests.capture.namespaces import Namespace
from tests.interop.node import PATIENCE_S, wait_until

UNAVAILABLE = 77
STOP_S = 30.0
BUILD_S = 3600.0


def binary(name: str) -> str:
    """The path of a server, built if needed. Skips the test where it cannot be had, saying why; fails it where it does not build."""
    made = subprocess.run([str(ROOT / "scripts/servers"), name], capture_output=True, text=True, timeout=BUILD_S, check=False)
    if made.returncode == UNAVAILABLE:
        pytest.skip(f"no {name} here: {made.stderr.strip()[-500:]}")
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


class Server:
    """`command` in `here`; its output is in `log`. `is_ready` is asked until it is true; an OSError means not yet."""

    def __init__(self, here: Namespace, command: Sequence[str], is_ready: Callable[[], object], log: Path) -> None:
        self._command = here.command(*command)
        self._is_ready, self._log = is_ready, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and returns when it is ready. Raises AssertionError with the end of its log when it ends or never is."""
        with self._log.open("ab") as log:
            self._process = process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

        def is_ready() -> bool:
            assert process.poll() is None, f"{self._name} ended with {process.returncode}:\n{self.said()[-3000:]}"
            try:
                return bool(self._is_ready())
            except OSError:
                return False

        try:
            wait_until(is_ready, f"{self._name} is ready", PATIENCE_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said()[-3000:]}") from None

    @property
    def _name(self) -> str:
        return Path(self._command[4]).name

    def kill(self) -> None:
        """SIGKILL, as a crash would end it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_S)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when that does not help. Safe twice and before the start."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
            self.kill()

    def said(self) -> str:
        """All that it has written so far."""
        return self._log.read_text(errors="replace")


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """It is started, and gone at the end."""
    try:
        server.start()
        yield server
    finally:
        server.stop()
