"""A node of the tests: a namespace in which servers and the agent run, with the two pods `shop` and `api` on a bridge; and load between them.

Servers listen on the usual ports of the node's own loopback, so nothing else on the machine can be in their way. The agent watches the ports of
the bridge and nothing else: what the test asks the servers is not in its numbers.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.capture.namespaces import Namespace, namespace
from tests.live.links import bridge

T = TypeVar("T")
PATIENCE_S = 60.0
"""How long something that must come may take on a busy machine."""
SHOP, API = "10.79.0.1", "10.79.0.2"
PORT = 8080
SERVICES = [
    {"name": "shop", "namespace": "demo", "addresses": [SHOP]},
    {"name": "api", "namespace": "demo", "addresses": [API]},
]
"""The setting `services:` that names the two."""
BRIDGE = ("p1", "p2")
"""The host ends of their links."""
ROUTER = "169.254.1.1"
"""The next hop of every routed pod, answered for at the host end of its own link."""


@dataclass(frozen=True, slots=True)
class Node:
    """The namespaces."""

    host: Namespace
    shop: Namespace
    api: Namespace
    taps: tuple[str, ...] = BRIDGE
    """The interfaces to watch: the host ends of the pods' links."""

    def ask(self, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
        """GET or POST from the node. Raises OSError, also for an answer that is no success."""
        with self.host.inside(), urllib.request.urlopen(urllib.request.Request(url, body, headers or {}), timeout=10) as answer:
            return bytes(answer.read())

    def json(self, url: str, **query: str) -> Any:
        """The JSON at an address."""
        return json.loads(self.ask(f"{url}?{urllib.parse.urlencode(query)}" if query else url))


@contextlib.contextmanager
def node() -> Iterator[Node]:
    """A fresh one, with `api` answering."""
    with namespace() as host, namespace() as shop, namespace() as api:
        bridge(host, [shop, api])
        wait_until(lambda: all("forwarding" in host.ip("-d", "link", "show", port) for port in BRIDGE), "the bridge forwards")
        with answering(api):
            yield Node(host, shop, api)


@contextlib.contextmanager
def routed_pod(host: Namespace, name: str, address: str) -> Iterator[Namespace]:
    """A pod as plug-ins that route make it: one address of its own, everything by way of the link's host end `cali-NAME`."""
    with namespace() as pod:
        link = f"cali-{name}"
        host.ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", pod.name)
        host.ip("addr", "add", f"{ROUTER}/32", "dev", link)
        host.ip("link", "set", link, "up")
        pod.ip("addr", "add", f"{address}/32", "dev", "eth0")
        pod.ip("link", "set", "eth0", "up")
        pod.ip("route", "add", ROUTER, "dev", "eth0", "scope", "link")
        pod.ip("route", "add", "default", "via", ROUTER)
        host.ip("route", "add", f"{address}/32", "dev", link)
        subprocess.run(host.command("sysctl", "-q", "-w", "net.ipv4.ip_forward=1"), check=True)
        yield pod


def forward_service(host: Namespace, address: str, port: int, *targets: str, target_port: int = PORT) -> None:
    """What kube-proxy does for a Service: its address becomes that of one endpoint after the other. Replaces what was forwarded before."""
    turns = ", ".join(f"{turn} : {target} . {target_port}" for turn, target in enumerate(targets))
    rule = f"ip daddr {address} tcp dport {port} dnat ip to numgen inc mod {len(targets)} map {{ {turns} }}"
    chain = f"chain pre {{\n type nat hook prerouting priority -100\n {rule}\n }}"
    table = f"table ip services {{}}\ndelete table ip services\ntable ip services {{\n {chain}\n}}\n"
    subprocess.run(host.command("nft", "-f", "-"), input=table, text=True, check=True, capture_output=True)


def wait_until(holds: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Until it holds. Raises AssertionError that says what never came."""
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, f"it never came that {what}"
        time.sleep(0.05)


def wait_for(find: Callable[[], T | None], what: str, patience_s: float = PATIENCE_S) -> T:
    """What `find` returns as soon as it is something. Raises AssertionError that says what never came."""
    found: list[T] = []

    def holds() -> bool:
        with contextlib.suppress(OSError, LookupError):
            value = find()
            if value:
                found.append(value)
        return bool(found)

    wait_until(holds, what, patience_s)
    return found[0]


class _Answers(http.server.BaseHTTPRequestHandler):
    """`/STATUS/MILLISECONDS/…` is answered with this status after this time."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        _, status, wait_ms, *_ = self.path.split("/")
        time.sleep(int(wait_ms) / 1000)
        body = b"answer\n"
        self.send_response_only(int(status))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """A test's output is its own."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # The base class asks the name server for this host's name.
        self.socket.bind(self.server_address)


@contextlib.contextmanager
def answering(here: Namespace, port: int = PORT, address: str = "") -> Iterator[None]:
    """A server in the namespace whose answers the path tells."""
    with here.inside():
        server = _Server((address, port), _Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE_S)


class Client:
    """One kept connection from a namespace, made anew when the server has ended it, and the answers it got by status."""

    def __init__(self, here: Namespace, address: str, port: int = PORT) -> None:
        self._here, self._connection = here, http.client.HTTPConnection(address, port)
        # By itself it would connect again in whatever namespace the thread is in.
        self._connection.auto_open = 0
        self._connect()
        self.answers: Counter[int] = Counter()

    def _connect(self) -> None:
        with self._here.inside():
            sock = socket.create_connection((self._connection.host, self._connection.port), PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.sock = sock

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> None:
        """One request and its whole answer."""
        if self._connection.sock is None:
            self._connect()
        self._connection.request("GET", path, headers=dict(headers or {}))
        answer = self._connection.getresponse()
        answer.read()
        self.answers[answer.status] += 1

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()


def send(
    node: Node, paths: Sequence[str], headers: Mapping[str, str] | None = None, *, address: str = API, port: int = PORT
) -> Counter[int]:
    """Requests from `shop` to `api`, one after the other on one connection; what was answered."""
    client = Client(node.shop, address, port)
    for path in paths:
        client.get(path, headers)
    client.close()
    return client.answers


class Load:
    """Requests in the background, about so many a second, until the end of the `with` block or `stop`."""

    def __init__(self, node: Node, paths: Sequence[str], *, per_second: float, address: str = API) -> None:
        self._client = Client(node.shop, address)
        self._paths, self._pause_s = paths, 1 / per_second
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.error: BaseException | None = None
        self.began_s = self.ended_s = 0.0

    @property
    def answers(self) -> Counter[int]:
        """What was answered so far, by status."""
        return self._client.answers

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends it; safe twice. Raises what the load died of."""
        self._stopping.set()
        self._thread.join(PATIENCE_S)
        self._client.close()
        if self.error is not None:
            raise self.error

    def wait_more(self, count: int) -> None:
        """Until so many more requests were answered."""
        goal = self.answers.total() + count
        wait_until(lambda: self.error is not None or self.answers.total() >= goal, f"{count} more requests were answered")

    def _run(self) -> None:
        try:
            self.began_s = next_s = time.time()
            number = 0
            while not self._stopping.is_set():
                self._client.get(self._paths[number % len(self._paths)])
                self.ended_s = time.time()
                number += 1
                next_s += self._pause_s
                self._stopping.wait(max(0.0, next_s - time.time()))
        except BaseException as error:
            self.error = error
