"""What the benchmarks with real traffic share: two namespaces with a veth between them, nginx in one, wrk in the other, and watchers on the veth.

Nothing outside these namespaces is touched, and everything is gone at the end. Whoever watches does so at the host's end of the pair, where
wrk runs, as an agent watches a pod.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.agent.process import COMMAND, descendants, environment
from tests.capture.namespaces import Namespace, join, namespace

TAP = "v0"
SERVER = "10.77.0.2"
SINK_PORT, GRPC_SINK_PORT, CLOSED_PORT, PROMETHEUS_PORT, STATUS_PORT = 4318, 4317, 4319, 9464, 14318
CONNECTIONS = 32
SO_ATTACH_FILTER = 26
TICKS = os.sysconf("SC_CLK_TCK")
NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/errors; worker_rlimit_nofile 4096;
events {{ worker_connections 2048; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{
    listen {server}:80;
    location / {{ default_type text/plain; return 200 "Hello, World!"; }}
    location = /status {{ stub_status; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk says it did, and the processor time that it and nginx took for it, the kernel's part of the network included."""

    requests: int
    per_s: float
    errors: int
    cpu_s: float

    @property
    def cpu_us(self) -> float:
        """Microseconds a request: the measure that busy neighbours disturb least."""
        return self.cpu_s / self.requests * 1e6


@dataclass(frozen=True, slots=True)
class Stage:
    """The two namespaces."""

    host: Namespace
    pod: Namespace
    nginx: int

    def load(self, seconds: int, connections: int = CONNECTIONS) -> Load:
        """Keep-alive requests, as fast as nginx answers."""
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"http://{SERVER}/api/v1/users/123"]
        before_s = self._cpu_s()
        text = subprocess.run(self.host.command(*command), check=True, capture_output=True, text=True, timeout=seconds + 30).stdout
        done, rate = re.search(r"(\d+) requests in", text), re.search(r"Requests/sec:\s*([\d.]+)", text)
        failed = [int(number) for line in re.findall(r"(?:Socket errors|Non-2xx).*", text) for number in re.findall(r"\b\d+\b", line)]
        assert done
        assert rate
        return Load(int(done[1]), float(rate[1]), sum(failed), self._cpu_s() - before_s)

    def _cpu_s(self) -> float:
        """Of nginx, and of all programs run here so far: one wrk between two calls."""
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return sum(_ticks(pid) for pid in (self.nginx, *descendants(self.nginx))) / TICKS + ended.ru_utime + ended.ru_stime

    def answered(self) -> int:
        """Requests that nginx has had, this one left out."""
        words = self.get(80, "/status", SERVER).split()
        return int(words[words.index("requests") + 3]) - 1

    def get(self, port: int, path: str, address: str = "127.0.0.1") -> str:
        """A page, from the host's namespace."""
        with self.host.inside():
            connection = http.client.HTTPConnection(address, port, timeout=10)
            connection.connect()
        with contextlib.closing(connection):
            connection.request("GET", path)
            return connection.getresponse().read().decode()


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Two namespaces, with nginx answering in one."""
    with namespace() as host, namespace() as pod, tempfile.TemporaryDirectory() as folder:
        join(host, pod, names=(TAP, "eth0"))
        file = Path(folder) / "nginx.conf"
        file.write_text(NGINX.format(folder=folder, server=SERVER))
        os.chmod(folder, 0o755)
        with subprocess.Popen(pod.command("nginx", "-c", str(file)), stderr=subprocess.DEVNULL) as nginx:
            made = Stage(host, pod, nginx.pid)
            try:
                _until(lambda: made.answered() >= 0)
                yield made
            finally:
                nginx.terminate()


def _until(holds: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, ValueError):
            if holds():  # type: ignore[operator]
                return
        if time.monotonic() > deadline:
            raise SystemExit("what the benchmark needs did not come up")
        time.sleep(0.05)


# -- who watches -----------------------------------------------------------------------------------------------------------------------------------------


class Watcher:
    """A process that watches, and what it has spent."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self.process = process

    def cpu_s(self) -> float:
        """User and system time of it and its children that live."""
        return sum(_ticks(pid) for pid in (self.pid, *descendants(self.pid))) / TICKS

    def rss_mib(self) -> float:
        return _status(self.pid, "VmRSS") / 1024

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(20)


def _ticks(pid: int) -> int:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(words[11]) + int(words[12])
    return 0


def _status(pid: int, name: str) -> int:
    found = re.search(rf"{name}:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0


@contextlib.contextmanager
def started(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, out: int = subprocess.DEVNULL, cwd: str | None = None
) -> Iterator[Watcher]:
    """A process, killed at the end if it is still there."""
    with subprocess.Popen(command, env=dict(env) if env else None, stdout=out, stderr=subprocess.DEVNULL, cwd=cwd) as process:
        try:
            yield Watcher(process)
        finally:
            for pid in descendants(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.kill()


@contextlib.contextmanager
def agent(
    where: Stage,
    *,
    config: str = "",
    prefix: Sequence[str] = (),
    exporters: Sequence[str] = (),
    endpoint: int = SINK_PORT,
    env: Mapping[str, str] | None = None,
) -> Iterator[Watcher]:
    """The agent on the veth, ready, with its status page on, which tells what it has counted. Without `exporters`: OTLP. `prefix`: in front of the whole command."""
    around = environment(**{"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{endpoint}", **(env or {})})
    exports = [word for name in exporters for word in ("--exporter", name)]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(f"status: {{enabled: true, port: {STATUS_PORT}}}\nexporters: {{prometheus: {{port: {PROMETHEUS_PORT}}}}}\n{config}\n")
        file.flush()
        command = [*prefix, *where.host.command(*COMMAND, "run", "--config", file.name, "--interface", TAP, *exports)]
        with started(command, env=around) as running:
            _until(lambda: running.process.poll() is not None or where.get(STATUS_PORT, "/readyz") == "ready\n")
            if running.process.poll() is not None:
                said = subprocess.run(command, env=around, capture_output=True, text=True, timeout=30, check=False)
                raise SystemExit(f"the agent ended: {said.stderr}")
            yield running


@dataclass(frozen=True, slots=True)
class ApiServer:
    """The fake API server of the tests, in a process of its own beside the agent."""

    process: subprocess.Popen[str]
    env: Mapping[str, str]
    """For an agent that follows it."""

    def ask(self, line: str) -> dict[str, int]:
        """Gives it a line of `tests.kubernetes.cluster`; the requests that it has had, by kind."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        found: dict[str, int] = json.loads(self.process.stdout.readline())
        return found


@contextlib.contextmanager
def api_server(where: Stage, pods: int) -> Iterator[ApiServer]:
    """A cluster of so many pods, of which one is the stage's."""
    command = where.host.command(sys.executable, "-m", "tests.kubernetes.cluster", "--pods", str(pods), "--answering", SERVER)
    with (
        tempfile.NamedTemporaryFile("w") as file,
        subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stdout
            file.write(process.stdout.readline())
            file.flush()
            yield ApiServer(process, {"KUBECONFIG": file.name, "K8S_NODE_NAME": "node-0"})
        finally:
            process.terminate()


def numbers(where: Stage, port: int, name: str) -> dict[str, float]:
    """Series of one metric of a page in Prometheus' format, by their labels."""
    found = {}
    for line in where.get(port, "/metrics").splitlines():
        series, _, value = line.partition(" # ")[0].rpartition(" ")
        if re.match(rf"{name}(\{{|$)", series):
            found[series[len(name) :]] = float(value)
    return found


def exchanges(where: Stage) -> int:
    """Exchanges that the agent has taken in so far, each once."""
    return int(numbers(where, STATUS_PORT, "otel_ebpf_receiver_records_total")['{fate="admitted"}'])


def observed(where: Stage) -> int:
    """Exchanges in the histogram of durations, as the page for Prometheus shows it: once an interval, 0 before the first."""
    return int(sum(numbers(where, PROMETHEUS_PORT, "http_server_request_duration_seconds_count").values()))


@contextlib.contextmanager
def empty_filter(where: Stage) -> Iterator[None]:
    """A packet socket whose filter drops everything at once: what any watcher by packet socket costs at least."""
    program = struct.pack("=HBBI", 6, 0, 0, 0)  # ret #0
    buffer = ctypes.create_string_buffer(program, len(program))
    with where.host.inside():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("=HxxxxxxQ", 1, ctypes.addressof(buffer)))
        sock.bind((TAP, 3))
    with sock:
        yield


class _Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        left = int(self.headers["Content-Length"])
        while left:
            left -= len(self.rfile.read(min(left, 1 << 20)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@contextlib.contextmanager
def sink(where: Stage) -> Iterator[Watcher]:
    """An OTLP receiver over HTTP that throws everything away, in a process of its own."""
    with started(where.host.command(sys.executable, __file__), env=environment()) as running:
        _until(lambda: bool(where.get(SINK_PORT, "/") or True))
        yield running


@contextlib.contextmanager
def grpc_sink(where: Stage) -> Iterator[Watcher]:
    """The same over gRPC."""
    with started(where.host.command(sys.executable, __file__, "grpc"), env=environment()) as running:
        _until(lambda: _accepts(where, GRPC_SINK_PORT))
        yield running


def _accepts(where: Stage, port: int) -> bool:
    with where.host.inside(), socket.create_connection(("127.0.0.1", port), 1):
        return True


def _serve_grpc() -> None:
    """Answers every call with an empty message, which is a whole answer to either signal. Does not return."""
    import grpc

    class Everything(grpc.GenericRpcHandler):
        def service(self, handler_call_details: object) -> grpc.RpcMethodHandler[bytes, bytes]:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Everything()], options=(("grpc.max_receive_message_length", -1),))
    server.add_insecure_port(f"127.0.0.1:{GRPC_SINK_PORT}")
    server.start()
    server.wait_for_termination()


def _serve_http() -> None:
    ThreadingHTTPServer(("127.0.0.1", SINK_PORT), _Sink).serve_forever()


if __name__ == "__main__":
    threading.current_thread().name = "sink"
    if sys.argv[1:] == ["grpc"]:
        _serve_grpc()
    else:
        _serve_http()
