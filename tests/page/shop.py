"""A shop of five services in namespaces on one bridge, with names from the configuration, and the agent that watches the bridge's ports."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.agent.process import AgentProcess, agent
from tests.capture.namespaces import Namespace, namespace
from tests.live.links import bridge

SERVICE = Path(__file__).with_name("service.py")
NEEDS = {
    "web": ["/cart=http://10.79.0.2:8080/items", "/broken=http://10.79.0.3:8080/broken/stock", "/=http://10.79.0.3:8080/products/7"],
    "cart": ["/items=http://10.79.0.4:8080/prices,http://10.79.0.5:8080/slow/rates"],
    "catalog": ["/products=http://10.79.0.4:8080/prices"],
    "prices": [],
    "rates": [],
}
"""Each at the address of its number, .1 to .5; the host asks them from .254."""
PATHS = ("/", "/products/17", "/products/4", "/cart/9", "/missing", "/broken/thing", "/", "/products/8")
PORT = 14318
URL = f"http://127.0.0.1:{PORT}/"


def configuration() -> dict[str, object]:
    """Names for the addresses, guessed routes, and the page."""
    names = [*NEEDS, *[""] * 248, "customers"]
    services = [
        {"name": name, "namespace": "shop", "addresses": [f"10.79.0.{number}"]}
        for number, name in enumerate(names, 1)
        if name and number != 254
    ]
    return {
        "services": [*services, {"name": "customers", "addresses": ["10.79.0.254"]}],
        "capture": {"taps": ["p*"]},
        "telemetry": {"templating": {"enabled": True}},
        "status": {"page": True},
    }


@dataclass(slots=True)
class Shop:
    """The namespace of the host and the file that configures the agent there."""

    host: Namespace
    config: Path

    @contextlib.contextmanager
    def agent(self, *arguments: str) -> Iterator[AgentProcess]:
        """The agent, ready."""
        with agent("--config", str(self.config), *arguments, prefix=self.host.command()) as running:
            running.ready()
            yield running

    @contextlib.contextmanager
    def customers(self, each_s: float = 0.01, paths: Sequence[str] = PATHS) -> Iterator[None]:
        """One of the paths after the other, again and again, in a thread."""
        ended = threading.Event()

        def ask() -> None:
            with self.host.inside():
                number = 0
                while not ended.is_set():
                    number += 1
                    self.get(paths[number % len(paths)])
                    ended.wait(each_s)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(20)

    def get(self, path: str) -> int:
        """The status of one request to `web`; the calling thread is in the host's namespace."""
        connection = http.client.HTTPConnection("10.79.0.1", 8080, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()


@contextlib.contextmanager
def shop(folder: Path) -> Iterator[Shop]:
    """Everything but the agent."""
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(namespace())
        pods = [stack.enter_context(namespace()) for _ in NEEDS]
        bridge(host, pods)
        for number, (pod, needs) in enumerate(zip(pods, NEEDS.values(), strict=True), 1):
            command = pod.command(sys.executable, str(SERVICE), f"10.79.0.{number}", "8080", *needs)
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
        config = folder / "agent.yaml"
        config.write_text(yaml.safe_dump(configuration()))
        made = Shop(host, config)
        _wait(made)
        yield made


def _wait(made: Shop) -> None:
    """Until every service answers: two of the paths need all five."""
    deadline = time.monotonic() + 30
    while True:
        with made.host.inside(), contextlib.suppress(OSError):
            if made.get("/") == made.get("/cart/1") == 200:
                return
        assert time.monotonic() < deadline, "the shop does not answer"
        time.sleep(0.1)
