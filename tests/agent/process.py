"""The agent as a child process of a test: started anywhere, its output read by lines, ended in every case."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

PATIENCE = float(os.environ.get("TEST_PATIENCE", "1"))
"""How much slower than a machine of its own a machine may be: scripts/guest, whose CPUs are emulated, says so."""
START_S = 180.0 * PATIENCE
"""Generous: the machine may be busy. Promises about time are measured by benchmarks."""
STOP_S = 5.0 * PATIENCE
"""What the agent promises after SIGTERM, also with a dead backend."""
COMMAND = (sys.executable, "-c", "import sys; from otel_ebpf_receiver.cli import main; sys.exit(main())")
ROOT = Path(__file__).parents[2]


def environment(**more: str) -> dict[str, str]:
    """The test's environment without what would configure an agent."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("OTEL_") and name not in ("KUBECONFIG", "K8S_NODE_NAME")
    }
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def run(*arguments: str, prefix: Sequence[str] = (), **more: str) -> subprocess.CompletedProcess[str]:
    """A verb that ends by itself."""
    command = [*prefix, *COMMAND, *arguments]
    return subprocess.run(command, env=environment(**more), capture_output=True, text=True, timeout=START_S, check=False)


class Lines:
    """Collects a stream's lines in the background, so that nobody blocks on a full pipe."""

    def __init__(self, stream: IO[str]) -> None:
        self.seen: list[str] = []
        self._arrived: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._arrived.put(line.rstrip("\n"))
        self._arrived.put(None)

    def wait(self, wanted: Callable[[str], bool], timeout_s: float = START_S) -> str:
        """The first line, seen before or to come, that is wanted. Raises AssertionError with everything seen."""
        deadline = time.monotonic() + timeout_s
        for line in self.seen:
            if wanted(line):
                return line
        while True:
            with contextlib.suppress(queue.Empty):
                line_or_end = self._arrived.get(timeout=max(0.0, deadline - time.monotonic()))
                if line_or_end is not None:
                    self.seen.append(line_or_end)
                    if wanted(line_or_end):
                        return line_or_end
                    continue
            raise AssertionError("the line did not come; there were:\n" + "\n".join(self.seen))

    def rest(self) -> list[str]:
        """Every line, when the stream has ended."""
        self._thread.join(STOP_S)
        with contextlib.suppress(queue.Empty):
            while (line := self._arrived.get_nowait()) is not None:
                self.seen.append(line)
        return self.seen


class AgentProcess:
    """A running agent. `pid` is the process that was started, which is a wrapper's where a prefix needs one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self.pid = process.pid
        self.out = Lines(process.stdout)
        self.err = Lines(process.stderr)

    def ready(self) -> str:
        """Waits for the line that says ready; a process that ends instead shows why."""
        try:
            return self.out.wait(lambda line: "ready" in line.split(":")[0].split())
        except AssertionError as error:
            raise AssertionError(f"{error}\nstandard error:\n" + "\n".join(self.err.rest())) from None

    def stop(self) -> int:
        """SIGTERM, and the exit code, which must come in time."""
        self.process.terminate()
        return self.process.wait(STOP_S)


@contextlib.contextmanager
def agent(*arguments: str, prefix: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Iterator[AgentProcess]:
    """`run` with `arguments`, killed at the end if it is still there."""
    command = [*prefix, *COMMAND, "run", *arguments]
    with subprocess.Popen(command, env=environment(**(env or {})), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        running = AgentProcess(process)
        try:
            yield running
        finally:
            for child in descendants(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, 9)
            process.kill()
            running.out.rest()
            running.err.rest()


def descendants(pid: int) -> list[int]:
    """Process ids below `pid`."""
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


@contextlib.contextmanager
def http_server(prefix: Sequence[str], *, address: str = "", port: int = 8080) -> Iterator[None]:
    """Python's own HTTP server (HTTP/1.1) over the folder of configurations, in a namespace."""
    command = [*prefix, sys.executable, "-m", "http.server", "--protocol", "HTTP/1.1", "--directory", str(ROOT / "config"), str(port)]
    bind = ["--bind", address] if address else []
    with subprocess.Popen([*command, *bind], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_listening(process.pid, port)
            yield
        finally:
            process.kill()


def _wait_listening(pid: int, port: int) -> None:
    """Until a socket of the process's namespace listens on the port."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]]
            if any(row[3] == "0A" and row[1].endswith(f":{port:04X}") for row in rows):
                return
        time.sleep(0.02)
    raise AssertionError(f"nothing listens on port {port}")


def curl(prefix: Sequence[str], url: str, *arguments: str) -> str:
    """The status code that curl got."""
    command = [*prefix, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20", *arguments, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
