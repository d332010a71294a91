"""Every command of the documents is run as it stands, or says that it is not and why.

In a Markdown file a block of `sh` is run from the root of the checkout, in a network namespace of its page, and must succeed. A comment before
it changes that: `<!-- background -->` starts it and expects a first line, and SIGTERM, at the next agent or at the end of the page, must end it with 0;
`<!-- not run: REASON -->` says so.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.agent.process import Lines, environment
from tests.capture.namespaces import Namespace, namespace

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for folder in (".", "docs", "config", "otel_ebpf_receiver", "tests")
    for path in (ROOT.glob("*.md") if folder == "." else (ROOT / folder).rglob("*.md"))
    if not {"site", "vendor"} & set(path.parts)
)
FENCE = re.compile(r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"sh", "yaml", "text", "c", "python", "json", "promql", ""}
PATIENCE_S = 120.0
STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    mark: str
    language: str
    text: str

    @property
    def is_background(self) -> bool:
        return self.mark == "background"

    @property
    def is_run(self) -> bool:
        return self.language == "sh" and not self.mark.startswith("not run:")


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    text = page.read_text()
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found["mark"] or "", found["language"], found["text"])
        for found in FENCE.finditer(text)
    ]


def is_agent(block: Block) -> bool:
    """Whether it starts an agent."""
    return "scripts/run" in block.text


def shell(here: Namespace, text: str) -> list[str]:
    """A block as a command inside a namespace."""
    return here.command("bash", "-euo", "pipefail", "-c", text)


def environ() -> dict[str, str]:
    """Unbuffered, so that a first line is seen, and with nothing that would configure an agent."""
    return environment(PYTHONUNBUFFERED="1") | {"PYTHONPATH": ""}


@contextlib.contextmanager
def started(here: Namespace, block: Block) -> Iterator[None]:
    """A block in the background; it has said something before this goes on."""
    command = shell(here, block.text)
    with subprocess.Popen(
        command, cwd=ROOT, env=environ(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        lines = Lines(process.stdout)
        try:
            lines.wait(lambda line: line.startswith("ready") if is_agent(block) else bool(line), PATIENCE_S)
            yield
            assert process.poll() is None, lines.seen
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                code = process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        # The agent promises to end with 0; others end as SIGTERM ends them.
        assert code in ((0,) if is_agent(block) else (0, -signal.SIGTERM, 128 + signal.SIGTERM)), lines.rest()


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.is_run for block in blocks(page))], ids=lambda page: str(page.name))
def test_commands_of_a_page(page: Path) -> None:
    """Each block does what a reader would want of it: it succeeds."""
    with namespace() as here, contextlib.ExitStack() as stack, contextlib.ExitStack() as agents:
        here.ip("link", "set", "lo", "up")
        for block in blocks(page):
            if not block.is_run:
                continue
            if block.is_background:
                # One agent at a time: the next would find the port of the status server taken.
                if is_agent(block):
                    agents.close()
                (agents if is_agent(block) else stack).enter_context(started(here, block))
                continue
            done = subprocess.run(
                shell(here, block.text), cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=PATIENCE_S, check=False
            )
            assert done.returncode == 0, f"{page.name}:{block.line}\n{block.text}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_blocks_say_what_they_are(page: Path) -> None:
    """A block has a known language, and a mark is one of those that are understood and gives its reason."""
    for block in blocks(page):
        assert block.language in LANGUAGES, (page.name, block.line)
        if block.language == "sh" and block.mark:
            assert block.is_background or re.fullmatch(r"not run: .{8,}", block.mark), (page.name, block.line)
    text = page.read_text()
    assert text.count("\n```") % 2 == 0
    assert not re.search(r"^([ \t>]+```|~~~)", text, re.MULTILINE), "a block that this test would not find"


def test_pages_name_only_files_that_exist() -> None:
    """Each path of this tree that a page names in code marks is there."""
    named = re.compile(r"`((?:otel_ebpf_receiver|bpf|config|scripts|tests|benchmarks|docs|helm|requirements)/[\w./{}-]*[\w/])`")
    missing = [
        f"{page.name}: {path}"
        for page in PAGES
        for path in named.findall(page.read_text())
        if not (ROOT / path).exists() and "{" not in path
    ]

    assert not missing
