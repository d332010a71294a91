"""The console: lines, filters, and that a slow or absent reader never holds anything up."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import termios
import time
from collections.abc import Callable

import pytest

from otel_ebpf_receiver.errors import ExportError
from otel_ebpf_receiver.export.console import Console
from otel_ebpf_receiver.export.lines import duration, keep_rows, plain_line, size
from otel_ebpf_receiver.export.queue import Books
from tests.export.rows import Exchange


def test_a_plain_line_holds_everything() -> None:
    """Time, peers, method, path, status, first byte, duration, sizes, error and flags stand in one line."""
    line = plain_line(Exchange(error="connection_reset", flags=("target_cut", "pipelined")))

    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.123 10\.0\.0\.1:40000 → shop/web:80 GET /cart 200 1\.25ms 2\.50ms 0B/1\.50KiB "
        r"connection_reset target_cut pipelined",
        line,
    )


def test_without_an_answer_nothing_is_invented() -> None:
    """No status and no first byte are dashes."""
    assert " - - 2.50ms " in plain_line(Exchange(status=None, ttfb_ns=None))


def test_the_wire_cannot_steer_the_terminal() -> None:
    """Escape sequences, line ends and direction marks in a path, a method or a name are shown as escapes."""
    line = plain_line(Exchange(path="/\x1b[2J\n\u202eé", method="G\x07", client="a\rb"))

    assert "/\\x1b[2J\\x0a\\x202eé" in line
    assert "G\\x07" in line
    assert "a\\x0db" in line
    assert line.isprintable()


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (duration, 850_000, "850µs"),
        (duration, 999_600, "1.00ms"),
        (duration, 12_345_678, "12.3ms"),
        (duration, 123_456_789_000, "123s"),
        (size, 1023, "1023B"),
        (size, 20 << 20, "20.0MiB"),
        (size, 3 << 30, "3.00GiB"),
    ],
)
def test_numbers_have_three_digits(function: Callable[[int], str], value: int, expected: str) -> None:
    """Durations and sizes are short and carry their unit."""
    assert function(value) == expected


@pytest.mark.parametrize(
    ("only", "path", "service", "kept"),
    [
        (None, None, None, ["ok", "missing", "broken", "reset"]),
        ("2xx", None, None, ["ok"]),
        ("3xx", None, None, []),
        ("4xx", None, None, ["missing"]),
        ("5xx", None, None, ["broken"]),
        ("errors", None, None, ["broken", "reset"]),
        ("error", None, None, ["broken", "reset"]),
        (None, "/api/*", None, ["missing", "broken"]),
        (None, None, "web", ["ok", "reset"]),
        (None, None, "shop/web", ["ok", "reset"]),
        (None, None, "shop/api:80", ["missing", "broken"]),
        (None, None, "10.0.0.1", ["ok", "missing", "broken", "reset"]),
        ("errors", "/api/*", "api", ["broken"]),
    ],
)
def test_filters_choose(only: str | None, path: str | None, service: str | None, kept: list[str]) -> None:
    """Each filter alone and all together keep what they name."""
    rows = {
        "ok": Exchange(),
        "missing": Exchange(path="/api/a?b=/x", status=404, server="shop/api:80"),
        "broken": Exchange(path="/api/b", status=503, server="shop/api:80"),
        "reset": Exchange(status=None, error="connection_reset"),
    }

    keep = keep_rows(only, path, service)

    assert [name for name, row in rows.items() if keep(row)] == kept


def test_an_unknown_filter_is_an_error() -> None:
    """The message names the filters that exist."""
    with pytest.raises(ExportError, match="4xx, 5xx, errors"):
        keep_rows("1xx")


def printed(*rows: Exchange, as_json: bool = False) -> str:
    """What a console on a pipe prints of `rows`."""
    reader, writer = os.pipe()
    console = Console(writer, as_json=as_json)
    console.start()
    console.offer(rows)
    console.finish(time.monotonic() + 10)
    console.stop()
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        return file.read()


def test_a_pipe_gets_plain_text() -> None:
    """No colours, one line each, in order."""
    lines = printed(Exchange(), Exchange(path="/b")).splitlines()

    assert lines == [plain_line(Exchange()), plain_line(Exchange(path="/b"))]


def test_json_holds_the_numbers() -> None:
    """Each line is an object with the row's own values."""
    (line,) = printed(Exchange(path="/é\x1b", flags=("interim",)), as_json=True).splitlines()

    assert line.isascii()
    assert json.loads(line) == {
        "time_unix_ns": 1_700_000_000_123_456_789,
        "client": "10.0.0.1:40000",
        "server": "shop/web:80",
        "method": "GET",
        "path": "/é\x1b",
        "status": 200,
        "ttfb_ns": 1_250_000,
        "duration_ns": 2_500_000,
        "request_bytes": 0,
        "response_bytes": 1536,
        "error": None,
        "flags": ["interim"],
    }


def on_a_terminal(*rows: Exchange, columns: int = 120) -> list[str]:
    """The lines, colours included, that a console on a terminal of this width writes."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    console = Console(terminal)
    console.start()
    console.offer(rows)
    console.finish(time.monotonic() + 10)
    console.stop()
    text = os.read(controller, 65536).decode()
    os.close(terminal)
    os.close(controller)
    return text.splitlines()


def bare(line: str) -> str:
    """A line without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


def test_a_terminal_gets_columns_and_colour() -> None:
    """On a terminal there is a header once, columns line up, and errors are red."""
    lines = on_a_terminal(Exchange(), Exchange(path="/" + "x" * 300, status=500))

    header, first, second = map(bare, lines)
    assert "\x1b[31m" in lines[2]
    assert "\x1b[31m" not in lines[1]
    assert "…" in second
    assert header.index("status") == first.index("200") == second.index("500")
    assert header.index("total") + len("total") == first.index("2.50ms") + len("2.50ms") == second.index("2.50ms") + len("2.50ms")


@pytest.mark.parametrize(
    ("columns", "client", "server", "shown"),
    [
        (160, "10.0.0.1:40000", "shop/web:80", "10.0.0.1:40000 → shop/web:80"),
        (120, "10.10.0.10:40000", "10.10.0.11:8080", "10.10.0.10 → 10.10.0.11:8080"),
        (120, "[fd00::1:2:3]:40000", "shop/web:80", "[fd00::1:2:3] → shop/web:80"),
        (100, "front/storefront-of-the-shop", "shop/web:80", "front/s… → shop/we…"),
        (100, "a/b:40000", "shop/a-service-with-a-long-name:80", "a/b → shop/a-servi…"),
        (100, "front/storefront-of-the-shop:40000", "b/c:80", "front/sto… → b/c:80"),
    ],
)
def test_both_sides_stay_in_sight(columns: int, client: str, server: str, shown: str) -> None:
    """Where it is narrow the client's port goes first, then each side keeps its share of the room."""
    _, line = on_a_terminal(Exchange(client=client, server=server), columns=columns)

    assert f" {shown} " in bare(line)


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR set (https://no-color.org) the columns stay and no colour is used."""
    monkeypatch.setenv("NO_COLOR", "1")

    header, line = on_a_terminal(Exchange(status=500))

    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", header + line)
    assert "500" in line


def test_a_reader_that_does_not_read_holds_nothing_up() -> None:
    """With a full pipe offers return, the excess is dropped and counted, stop() ends in time, and the books balance."""
    reader, writer = os.pipe()
    console = Console(writer, max_rows=500)
    console.start()
    for _ in range(100):
        console.offer([Exchange(path="/" + "x" * 500)] * 100)
    during = console.books()

    console.finish(time.monotonic() + 0.3)
    console.stop()
    console.stop()

    after = console.books()
    os.close(reader)
    os.close(writer)
    assert during.is_balanced
    assert during.dropped > 5000
    assert after.is_balanced
    assert (after.received, after.queued) == (10_000, 0)
    assert after.failed > 0


def test_what_was_dropped_is_said_when_the_reader_is_back() -> None:
    """A line tells how many exchanges are missing."""
    reader, writer = os.pipe()
    console = Console(writer, max_rows=10)
    console.offer([Exchange()] * 25)
    console.start()
    console.finish(time.monotonic() + 10)
    console.stop()
    os.close(writer)

    with open(reader, encoding="utf-8") as file:
        lines = file.read().splitlines()

    assert len(lines) == 11
    assert lines[-1].startswith("… 15 exchanges")


def test_a_reader_that_is_gone_ends_the_console_and_not_the_agent() -> None:
    """After `| head` has left, rows are counted and nothing is raised."""
    reader, writer = os.pipe()
    os.close(reader)
    console = Console(writer)
    console.start()
    console.offer([Exchange()] * 3)
    console.finish(time.monotonic() + 5)
    console.stop()
    console.offer([Exchange()] * 2)

    os.close(writer)
    assert console.books() == Books(received=5, failed=3, dropped=2)
