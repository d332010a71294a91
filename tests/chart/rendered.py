"""The chart's rendered examples, as they are kept beside it, and what is looked for in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.agent.process import ROOT

CHART = ROOT / "helm/otel-ebpf-receiver"
TRIAL = ROOT / "helm/trial"
EXAMPLES = CHART / "examples"
PLAIN = ROOT / "config/kubernetes/otel-ebpf-receiver.yaml"
Object = dict[str, Any]


def values_files() -> list[Path]:
    """The files of values that the chart is tried with."""
    return sorted((CHART / "ci").glob("*-values.yaml"))


@dataclass(frozen=True, slots=True)
class Rendered:
    """Objects of one rendering."""

    objects: tuple[Object, ...]

    def of(self, kind: str) -> list[Object]:
        """Those of a kind."""
        return [one for one in self.objects if one["kind"] == kind]

    def one(self, kind: str, name: str = "") -> Object:
        """The only one of a kind, or the one of that name. Raises ValueError when there is none or several."""
        (found,) = [one for one in self.of(kind) if not name or one["metadata"]["name"] == name]
        return found

    @property
    def pod(self) -> Object:
        """The pod's specification in the DaemonSet."""
        return dict(self.one("DaemonSet")["spec"]["template"]["spec"])

    @property
    def agent(self) -> Object:
        """Its container."""
        (container,) = self.pod["containers"]
        return dict(container)

    @property
    def config(self) -> str:
        """The agent's configuration file."""
        name = self.pod["volumes"][0]["configMap"]["name"]
        return str(self.one("ConfigMap", name)["data"]["otel-ebpf-receiver.yaml"])


def parsed(text: str) -> Rendered:
    """The objects of a rendered text."""
    return Rendered(tuple(one for one in yaml.safe_load_all(text) if one))


def kept() -> Iterator[tuple[str, Rendered]]:
    """Name and objects of every rendering in this tree: the examples and the plain manifests."""
    for file in [*sorted(EXAMPLES.glob("*.yaml")), PLAIN]:
        yield file.stem, parsed(file.read_text())
