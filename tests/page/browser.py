"""A headless Chromium inside a namespace, driven by Playwright; the distribution's own package."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from tests.capture.namespaces import Namespace

CHROMIUM = "/usr/bin/chromium"
REBOUND = "evil.example"
"""A name that the browser takes for this host."""


@contextlib.contextmanager
def browser(host: Namespace, folder: Path) -> Iterator[Browser]:
    """A browser whose network is the namespace's."""
    assert shutil.which(CHROMIUM), "chromium is missing: scripts/setup test installs it"
    wrapper = folder / "chromium"
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(host.command())} {CHROMIUM} "$@"\n')
    wrapper.chmod(0o755)
    with sync_playwright() as playwright:
        # Playwright's own profile folder, closed with the browser; --no-sandbox since the tests are root's.
        opened = playwright.chromium.launch(
            executable_path=str(wrapper), args=["--no-sandbox", "--disable-gpu", f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1"]
        )
        try:
            yield opened
        finally:
            opened.close()


class Watched:
    """A page with what went wrong in it: errors of scripts, refused loads, and everything it asked of another host."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        self.foreign: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._console)
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        # A connection that is refused while the agent is away is what a test wants to see survived.
        if message.type == "error" and "net::ERR" not in message.text:
            self.problems.append(message.text)

    def _request(self, request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            self.foreign.append(request.url)
