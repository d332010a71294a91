"""Writes what the documents take from the code: `python -m docs.generate FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from docs.generate import architecture, configuration, telemetry


def files() -> dict[str, str]:
    """The text of each made file by its path below `docs/`."""
    return {
        "configuration.md": configuration.page(),
        "telemetry.md": telemetry.page(),
        "pictures/architecture.svg": architecture.drawing(),
    }


if __name__ == "__main__":
    for name, text in files().items():
        path = Path(sys.argv[1]) / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
