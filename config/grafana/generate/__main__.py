"""Writes the dashboards: `python -m config.grafana.generate FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from config.grafana.generate.health import health
from config.grafana.generate.red import red
from config.grafana.generate.services import services
from config.grafana.generate.traces import traces


def dashboards() -> dict[str, str]:
    """The text of every dashboard by its file's name."""
    return {f"{made.__name__}.json": _text(made()) for made in (red, services, traces, health)}


def _text(made: Dashboard) -> str:
    built = made.build()
    for number, panel in enumerate(built.panels or [], 1):
        # Grafana would number them itself, differently each time.
        panel.id_val = number
    return json.dumps(built, cls=JSONEncoder, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name, text in dashboards().items():
        (Path(sys.argv[1]) / name).write_text(text)
