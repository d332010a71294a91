"""Takes the pictures of the documents: the live page in dark and light, and the console, each of the shop with a real agent.

python -m tests.page.pictures docs/pictures
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.agent.process import COMMAND, environment
from tests.page.browser import browser
from tests.page.shop import URL, Shop, shop

SIZE = {"width": 1280, "height": 960}
HISTORY_S = 45
"""How long the charts fill before the picture is taken."""
COLUMNS, LINES = 140, 24


def page(made: Shop, folder: Path, out: Path) -> None:
    """The page as it is when it has been looked at for a while."""
    with made.agent(), made.customers(0.03), browser(made.host, folder) as opened:
        context = opened.new_context(viewport=SIZE, color_scheme="dark")  # type: ignore[arg-type]
        seen = context.new_page()
        seen.goto(URL)
        time.sleep(HISTORY_S)
        for scheme in ("dark", "light"):
            seen.get_by_label("Theme").select_option(scheme)
            time.sleep(2)
            seen.screenshot(path=out / f"page-{scheme}.png")
        seen.locator("#agent").scroll_into_view_if_needed()
        seen.locator("#exchanges .stream").hover()
        seen.locator("#stream tr button").nth(3).click()
        time.sleep(1)
        seen.locator("#exchanges").screenshot(path=out / "page-exchange.png")


def console(made: Shop, out: Path) -> None:
    """What the agent writes to a terminal, drawn by rich from the very bytes."""
    controller, terminal = pty.openpty()
    os.set_inheritable(terminal, True)
    subprocess.run(["stty", "cols", str(COLUMNS), "rows", "40"], stdin=terminal, check=True)
    command = made.host.command(*COMMAND, "run", "--config", str(made.config), "--exporter", "console")
    env = environment(OTEL_EBPF_RECEIVER_STATUS_PAGE="false", TERM="xterm-256color")
    with subprocess.Popen(command, env=env, stdout=terminal, stderr=subprocess.DEVNULL) as process:
        os.close(terminal)
        said = b""
        while b"ready" not in said:
            said += os.read(controller, 65536)
        with made.customers(0.1):
            while said.count(b"\n") < LINES:
                said += os.read(controller, 65536)
        process.terminate()
        # A terminal that nobody reads would hold the end up.
        try:
            while os.read(controller, 65536):
                pass
        except OSError:
            pass
    os.close(controller)
    drawn = Console(record=True, width=COLUMNS, file=open(os.devnull, "w", encoding="utf-8"), force_terminal=True)  # noqa: SIM115
    for line in said.decode().splitlines()[:LINES]:
        drawn.print(Text.from_ansi(line), soft_wrap=True)
    svg = drawn.export_svg(title="otel-ebpf-receiver run --exporter console")
    # Its fonts would come from another host.
    (out / "console.svg").write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


def main() -> None:
    """Both, into the folder that is named."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pictures-") as folder, shop(Path(folder)) as made:
        console(made, out)
        page(made, Path(folder), out)


if __name__ == "__main__":
    main()
