"""The agent's life: start, signals at every moment, its end, and what it leaves."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent.process import START_S, STOP_S, AgentProcess, agent, curl, descendants, http_server
from tests.capture.namespaces import join, namespace

COLD = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /var/cache && exec "$@"', "sh")
"""Without what earlier starts compiled."""
LEAST = ("setpriv", "--bounding-set=-all,+bpf,+perfmon,+net_raw", "--inh-caps=-all")
FIRST_PROCESS = ("unshare", "--pid", "--fork", "--kill-child")


def wait_for(holds: Callable[[], object]) -> None:
    """Until it holds."""
    deadline = time.monotonic() + START_S
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.01)


def command_of(pid: int) -> str:
    """The command line of a process; empty when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def compiler_of(running: AgentProcess) -> int:
    """The process id of the child that compiles, 0 while there is none."""
    return next((pid for pid in descendants(running.pid) if "compile.py" in command_of(pid)), 0)


def test_three_capabilities_are_enough() -> None:
    """With BPF, PERFMON and NET_RAW and nothing else it compiles, says so, becomes ready, and ends by SIGTERM with 0."""
    with agent("--interface", "lo", prefix=(*COLD, *LEAST)) as running:
        line = running.ready()
        code = running.stop()

    assert "lo" in line
    assert code == 0
    assert sum("compiling the kernel side" in told for told in running.err.rest()) == 1


def test_nothing_is_left_of_the_compiler() -> None:
    """When it is ready the child is gone and reaped, no compiler is mapped, and only a few descriptors are open."""
    with agent("--interface", "lo") as running:
        running.ready()
        children = descendants(running.pid)
        # Files only: an address may hold any three letters that are digits too.
        mapped = " ".join(line[5] for line in map(str.split, Path(f"/proc/{running.pid}/maps").read_text().splitlines()) if len(line) > 5)
        opened = [os.readlink(f"/proc/{running.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{running.pid}/fd")]

    assert children == []
    assert "LLVM" not in mapped
    assert "bcc" not in mapped
    assert len(opened) < 80


def test_sigterm_during_the_compile() -> None:
    """It ends with 0 at once, and the compiler's child with it."""
    with agent("--interface", "lo", prefix=COLD) as running:
        wait_for(lambda: compiler_of(running))
        child = compiler_of(running)

        code = running.stop()

    assert code == 0
    assert command_of(child) == ""
    assert not any("ready" in line for line in running.out.rest())


@pytest.mark.parametrize("delay_s", [0.1, 0.2, 0.4])
def test_sigterm_at_any_moment_of_the_start(delay_s: float) -> None:
    """Whenever the signal comes after the handler is there, the exit is clean: nothing is printed about it."""
    with agent("--interface", "lo") as running:
        wait_for(lambda: _catches_sigterm(running.pid))
        time.sleep(delay_s)

        code = running.stop()

    assert code == 0
    assert "Traceback" not in "\n".join(running.err.rest())


def _catches_sigterm(pid: int) -> bool:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return bool(int(status["SigCgt"], 16) >> 14 & 1)


@pytest.mark.parametrize("is_early", [True, False])
def test_as_the_first_process(is_early: bool) -> None:
    """As PID 1 a signal without a handler would be ignored: it ends by SIGTERM, during the compile and later."""
    with agent("--interface", "lo", prefix=(*COLD, *FIRST_PROCESS)) as running:
        if is_early:
            wait_for(lambda: compiler_of(running))
        else:
            running.ready()
        first = descendants(running.pid)[0]

        os.kill(first, 15)
        code = running.process.wait(STOP_S)

    assert code == 0


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_dead_backend_does_not_keep_it(protocol: str) -> None:
    """With exchanges that nobody takes it still ends within five seconds, with 0."""
    with namespace() as here, namespace() as there:
        join(here, there)
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        with http_server(there.command()), agent(prefix=here.command(), env=environ) as running:
            running.ready()
            codes = [curl(here.command(), "http://10.77.0.2:8080/") for _ in range(3)]
            time.sleep(0.3)

            code = running.stop()

    assert codes == ["200"] * 3
    assert code == 0


def test_a_backend_that_never_answers_does_not_keep_it() -> None:
    """A Collector that takes the connection and then says nothing is a dead one too."""
    with namespace() as here, namespace() as there, here.inside(), socket.socket() as silent:
        silent.bind(("127.0.0.1", 4318))
        silent.listen()
        join(here, there)
        with (
            http_server(there.command()),
            agent(prefix=here.command(), env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}) as running,
        ):
            running.ready()
            curl(here.command(), "http://10.77.0.2:8080/")

            code = running.stop()

    assert code == 0


def test_status_server() -> None:
    """It answers probes and shows the agent's own counters; a taken port is told and ends the start."""
    with (
        namespace() as here,
        agent("--interface", "lo", prefix=here.command(), env={"OTEL_EBPF_RECEIVER_STATUS_ENABLED": "true"}) as running,
    ):
        running.ready()
        probes = [curl(here.command(), f"http://127.0.0.1:14318/{name}") for name in ("healthz", "readyz", "metrics", "status")]
        with agent("--interface", "lo", prefix=here.command(), env={"OTEL_EBPF_RECEIVER_STATUS_ENABLED": "true"}) as second:
            refused = second.process.wait(START_S)
            said = "\n".join(second.err.rest())
        code = running.stop()

    assert probes == ["200"] * 4
    assert refused == 1
    assert "14318" in said
    assert code == 0
