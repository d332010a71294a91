"""What is true of one exchange: the words that generator, reference parser and kernel tests share. Places are offsets in a stream."""

from __future__ import annotations

from dataclasses import dataclass, field

CLIENT, SERVER = 0, 1
SIDES = ("client", "server")


@dataclass(slots=True)
class Span:
    """A message in its stream: first byte of the start line, end of the head, end of the message; as far as it was sent."""

    begin: int
    head_end: int
    end: int


@dataclass(slots=True)
class Trace:
    """A valid `traceparent`."""

    version: int
    trace_id: bytes
    parent_id: bytes
    flags: int


@dataclass(slots=True)
class Exchange:
    """A request and what became of it. `response` is the final one; None: its status line was never complete."""

    method: bytes
    target: bytes
    minor: int
    request: Span
    request_body: int = 0
    host: bytes | None = None
    agent: bytes | None = None
    trace: Trace | None = None
    tracestate: bytes | None = None
    status: int = 0
    response: Span | None = None
    response_body: int = 0
    interim: bool = False
    error: str = ""
    side: str = ""
    request_complete: bool = True
    response_head_complete: bool = True
    framing: str = field(default="none", compare=False)
    """Of the response's body, or of the request's where that is the harder one: `none`, `length`, `chunked`, `close`."""
