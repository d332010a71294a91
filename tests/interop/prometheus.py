"""Prometheus: with its OTLP receiver, its scrape of the agent, and answers of its query API."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.interop.node import Node
from tests.interop.server import Server, binary, running

AT = "127.0.0.1:9090"
URL = f"http://{AT}"
SCRAPED = "127.0.0.1:9464"
"""Where the agent's own exporter listens by default."""


class Prometheus:
    """One of a node."""

    def __init__(self, node: Node, server: Server, address: str) -> None:
        self._node, self.server, self._url = node, server, f"http://{address}"

    @property
    def otlp(self) -> str:
        """Where OTLP is taken: `/v1/metrics` comes behind."""
        return f"{self._url}/api/v1/otlp"

    def query(self, expression: str, time_s: float | None = None) -> list[dict[str, Any]]:
        """The instant vector of an expression: `metric` (labels) and `value` (time, text)."""
        at = {} if time_s is None else {"time": f"{time_s:.3f}"}
        return list(self._node.json(f"{self._url}/api/v1/query", query=expression, **at)["data"]["result"])

    def number(self, expression: str, time_s: float | None = None) -> float:
        """The value of an expression with one result. Raises LookupError when it has none."""
        found = self.query(expression, time_s)
        if len(found) != 1:
            raise LookupError(f"{expression}: {found}")
        return float(found[0]["value"][1])

    def by(self, label: str, expression: str) -> dict[str, float]:
        """The values of an expression by one of its labels."""
        return {one["metric"][label]: float(one["value"][1]) for one in self.query(expression)}

    def exemplars(self, expression: str, start_s: float, end_s: float) -> list[dict[str, Any]]:
        """All exemplars of an expression's series: `labels`, `value`, `timestamp`."""
        found = self._node.json(f"{self._url}/api/v1/query_exemplars", query=expression, start=f"{start_s:.3f}", end=f"{end_s:.3f}")
        return [each for series in found["data"] for each in series["exemplars"]]


@contextlib.contextmanager
def prometheus(node: Node, folder: Path, *, features: tuple[str, ...] = ("exemplar-storage",), address: str = AT) -> Iterator[Prometheus]:
    """It scrapes the agent every second, and takes OTLP."""
    scrape = {"job_name": "agent", "honor_labels": True, "scrape_interval": "1s", "static_configs": [{"targets": [SCRAPED]}]}
    promoted = {"promote_resource_attributes": ["service.name", "service.namespace"]}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump({"scrape_configs": [scrape], "otlp": promoted}))
    command = [
        binary("prometheus"),
        f"--config.file={folder}/prometheus.yaml",
        f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address={address}",
        "--web.enable-otlp-receiver",
        f"--enable-feature={','.join(features)}",
    ]
    server = Server(node.host, command, lambda: node.ask(f"http://{address}/-/ready"), folder / "prometheus.log")
    with running(server):
        yield Prometheus(node, server, address)
