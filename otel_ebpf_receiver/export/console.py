"""Prints one line per exchange, in columns and colour on a terminal, as plain text or JSON anywhere else.

The agent never waits for a reader: rows go into a bounded queue and the console's own thread writes them. When terminal or pipe is slower
than the traffic, rows are dropped and counted, and the number is printed when there is room again.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from otel_ebpf_receiver.export.lines import PEERS, Keep, Row, cells, json_line, keep_rows, plain_line, printable, without_port
from otel_ebpf_receiver.export.queue import Books

MAX_ROWS = 10_000
AT_ONCE = 200
"""Rows rendered between two looks at the queue: enough to be efficient, few enough to be current."""
PIPE_BUF = 4096
"""What a pipe that polls as writable takes without blocking (POSIX: at least 512, Linux: a page)."""

Render = Callable[[list[Row]], str]


class Console:
    """Writes to descriptor `fd`, which it does not close. `stop()` is safe twice and before `start()`."""

    name = "console"

    def __init__(self, fd: int = 1, *, as_json: bool = False, keep: Keep | None = None, max_rows: int = MAX_ROWS) -> None:
        self._fd = fd
        self._keep = keep or keep_rows()
        self._max_rows = max_rows
        self._render: Render = render_json if as_json else TerminalTable(fd).render if os.isatty(fd) else render_plain
        self._note = "" if as_json else "… {} exchanges not shown: the reader is too slow\n"
        self._changed = threading.Condition()
        self._rows: deque[Row] = deque()
        self._writing = 0
        self._received = self._sent = self._dropped = self._failed = self._unsaid = 0
        self._sealed = False
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def offer(self, rows: Iterable[Row]) -> None:
        """Takes the rows that the filters keep; never blocks, drops what finds no room (the newest: what was seen stays in order)."""
        kept = [row for row in rows if self._keep(row)]
        with self._changed:
            room = 0 if self._sealed else max(0, self._max_rows - len(self._rows) - self._writing)
            self._rows.extend(kept[:room])
            self._received += len(kept)
            lost = max(0, len(kept) - room)
            self._dropped += lost
            self._unsaid += lost
            self._changed.notify_all()

    def books(self) -> Books:
        """Counts of rows that passed the filters; sent is what was written."""
        with self._changed:
            queued = len(self._rows) + self._writing
            return Books(self._received, self._sent, self._dropped, self._failed, queued=queued)

    def finish(self, deadline: float) -> None:
        """No more rows follow; what is queued must be written by `deadline` (`time.monotonic()`)."""
        with self._changed:
            self._sealed = True
            self._deadline = deadline
            self._changed.notify_all()

    def stop(self) -> None:
        """Waits for the deadline of `finish` (now, if there was none) and gives up the rest."""
        if self._deadline is None:
            self.finish(time.monotonic())
        if self._thread.is_alive():
            self._thread.join(max(0.0, (self._deadline or 0.0) - time.monotonic()) + 0.2)
        with self._changed:
            self._failed += len(self._rows) + self._writing
            self._rows.clear()
            self._writing = 0

    def _run(self) -> None:
        while rows := self._take():
            unsaid = self._unsaid
            text = self._render(rows) + (self._note.format(unsaid) if unsaid and self._note else "")
            written = self._write(text.encode("utf-8", "replace"))
            with self._changed:
                if self._writing:
                    self._sent += len(rows) if written else 0
                    self._failed += 0 if written else len(rows)
                    self._writing = 0
                self._unsaid -= unsaid
                if not written:
                    # The reader is gone, or the time is over: from here on everything is dropped and counted.
                    self._failed += len(self._rows)
                    self._rows.clear()
                    self._sealed = True
                    return

    def _take(self) -> list[Row]:
        with self._changed:
            self._changed.wait_for(lambda: self._rows or self._sealed)
            rows = [self._rows.popleft() for _ in range(min(AT_ONCE, len(self._rows)))]
            self._writing = len(rows)
            return rows

    def _write(self, data: bytes) -> bool:
        """Writes all of `data` as the reader makes room; False when the reader is gone or the deadline has passed.

        Below Python's buffered streams, whose lock, held by a thread that waits for a reader, would stop the interpreter from ending.
        """
        poll = select.poll()
        with contextlib.suppress(OSError):
            poll.register(self._fd, select.POLLOUT)
            while data:
                if self._deadline is not None and time.monotonic() > self._deadline:
                    return False
                for _, event in poll.poll(100):
                    if event & (select.POLLERR | select.POLLNVAL):
                        return False
                    with contextlib.suppress(BlockingIOError):
                        data = data[os.write(self._fd, data[:PIPE_BUF]) :]
            return True
        return False


def render_plain(rows: list[Row]) -> str:
    """Text lines."""
    return "".join(plain_line(row) + "\n" for row in rows)


def render_json(rows: list[Row]) -> str:
    """JSON lines."""
    return "".join(json_line(row) + "\n" for row in rows)


class TerminalTable:
    """Columns and colours by rich, in the width that the terminal has at the moment; a header first."""

    HEADERS = ("time", "client → server", "method", "path", "status", "first byte", "total", "sent/received", "")
    WIDTHS = (12, 0, 7, 0, 6, 10, 8, 15, 0)
    ALIGN = "<<<<<>>><"
    FIXED = sum(WIDTHS) + len(WIDTHS)

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._begun = False

    def render(self, rows: list[Row]) -> str:
        """Lines of `rows`, the header above the first ones."""
        # Imported where it is used: a node agent prints to no terminal, and need not hold rich in memory.
        from rich.console import Console as Rich
        from rich.text import Text

        out = io.StringIO()
        width = self._width()
        rich = Rich(file=out, force_terminal=True, width=width, soft_wrap=True, highlight=False)
        if not self._begun:
            self._begun = True
            rich.print(Text(self._line(self.HEADERS, width), style="bold"))
        for row in rows:
            texts = _without_repetition(cells(row))
            rich.print(Text(self._line((texts[0], _peers(row, self._widths(width)[1]), *texts[2:]), width), style=_style(row)))
        return out.getvalue()

    def _widths(self, width: int) -> list[int]:
        """Peers and path share what is left; notes follow at the end, and only they may run into the next line."""
        free = max(30, width - self.FIXED)
        widths = [*self.WIDTHS]
        widths[1] = free * 3 // 5
        widths[3] = free - widths[1]
        return widths

    def _line(self, texts: tuple[str, ...], width: int) -> str:
        columns = zip(texts, self._widths(width), self.ALIGN, strict=True)
        padded = [text if not size else f"{_cut(text, size):{align}{size}}" for text, size, align in columns]
        return " ".join(padded).rstrip()

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._fd).columns or 120
        except OSError:
            return 120


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"


def _peers(row: Row, size: int) -> str:
    """Both sides in `size` characters. Where it is narrow the client's port goes first, which tells least; then each side gets its share."""
    client, server = printable(row.client), printable(row.server)
    if len(client) + len(PEERS) + len(server) > size:
        client = without_port(client)
    room = max(2, size - len(PEERS))
    client = _cut(client, max(room // 2, room - len(server)))
    return f"{client}{PEERS}{_cut(server, room - len(client))}"


def _without_repetition(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Cells whose notes do not tell the status again, which is the error of an answer."""
    notes = texts[-1].split(" ")
    return texts if notes[0] != texts[4] else (*texts[:-1], " ".join(notes[1:]))


def _style(row: Row) -> str:
    if row.error is not None or (row.status or 0) >= 500:
        return "red"
    return "yellow" if (row.status or 0) >= 400 else ""
