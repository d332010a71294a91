"""A fake Kubernetes API server: the real protocol over a real socket, and every fault of it at the wish of a test.

Lists in pages with continue tokens, watches with bookmarks and ERROR events inside a 200, resource versions, history that can be
compacted, field selectors on the node's name, metadata-only answers, tokens, TLS. It knows no admission, no schema and no defaults:
objects are what the test gives.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]
COLLECTIONS = {
    "/api/v1/pods": "Pod",
    "/api/v1/services": "Service",
    "/apis/discovery.k8s.io/v1/endpointslices": "EndpointSlice",
    "/api/v1/nodes": "Node",
    "/api/v1/namespaces": "Namespace",
}
OWNERS = {"replicasets": "ReplicaSet", "jobs": "Job"}


@dataclass
class Fault:
    """An answer that is given instead of the real one, to requests whose path begins so, `times` times (-1: until taken away)."""

    path: str
    status: int = 0
    message: str = "fault"
    retry_after: str = ""
    times: int = -1
    only: Callable[[dict[str, str]], bool] = lambda query: True
    act: Callable[[Handler], None] | None = None
    until: threading.Event | None = None
    """The answer comes only then."""


@dataclass
class Change:
    """One event of the history."""

    version: int
    type: str
    kind: str
    body: Object


@dataclass
class Request:
    """What was asked."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    time_s: float


@dataclass
class State:
    """Everything of the server; guarded by `changed`."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    objects: dict[str, dict[str, Object]] = field(default_factory=lambda: {kind: {} for kind in (*COLLECTIONS.values(), *OWNERS.values())})
    history: list[Change] = field(default_factory=list)
    texts: dict[tuple[str, str], bytes] = field(default_factory=dict)
    version: int = 100
    oldest: int = 0
    tokens: set[str] | None = None
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    epoch: int = 0
    """Streams of an earlier epoch end."""
    cut: bool = False
    """They end in the middle of a line, not properly."""
    bookmark_s: float = 60.0
    bookmarks: list[tuple[str, int]] = field(default_factory=list)
    """Kind and version of each that was sent."""
    is_stopped: bool = False


class FakeApi:
    """The server. Use as a context manager; `url` is where it is."""

    def __init__(self, *, certificate: tuple[str, str] | None = None, port: int = 0) -> None:
        self.state = State()
        self._certificate = certificate
        self.port = port
        self._server: _Server | None = None

    def __enter__(self) -> FakeApi:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"{'https' if self._certificate else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen: on a free port the first time, on the same one afterwards."""
        handler = type("BoundHandler", (Handler,), {"state": self.state})
        server = _Server(("127.0.0.1", self.port), handler)
        if self._certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = server.server_address[1]
        self.state.is_stopped = False
        self._server = server
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Stop listening and break every connection."""
        server, self._server = self._server, None
        if not server:
            return
        with self.state.changed:
            self.state.is_stopped = True
            self.state.epoch += 1
            self.state.cut = True
            self.state.changed.notify_all()
        server.shutdown()
        server.server_close()
        server.break_connections()

    def put(self, *bodies: Object) -> None:
        """Create or change objects."""
        with self.state.changed:
            for body in bodies:
                uid, table = body["metadata"]["uid"], self.state.objects[body["kind"]]
                self.state.version += 1
                body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.state.version)}}
                self.state.history.append(Change(self.state.version, "MODIFIED" if uid in table else "ADDED", body["kind"], body))
                table[uid] = body
            self.state.changed.notify_all()

    def encode(self) -> None:
        """Have the texts of all objects ready, as a real server has them."""
        with self.state.changed:
            for table in self.state.objects.values():
                for body in table.values():
                    self.state.texts[body["metadata"]["uid"], body["metadata"]["resourceVersion"]] = json.dumps(body).encode()

    def delete(self, kind: str, uid: str) -> None:
        """Delete an object, as if nothing had held it."""
        with self.state.changed:
            self.state.version += 1
            body = self.state.objects[kind].pop(uid)
            body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.state.version)}}
            self.state.history.append(Change(self.state.version, "DELETED", kind, body))
            self.state.changed.notify_all()

    def send_line(self, kind: str, line: bytes) -> None:
        """Send a line of one's own to all watches of a kind."""
        with self.state.changed:
            self.state.version += 1
            self.state.history.append(Change(self.state.version, "LINE", kind, {"line": line}))
            self.state.changed.notify_all()

    def send_error(self, kind: str, code: int, reason: str) -> None:
        """Send an ERROR event, inside the 200 of all watches of a kind, after which they end."""
        body = _status(code, reason, reason)
        with self.state.changed:
            self.state.version += 1
            self.state.history.append(Change(self.state.version, "ERROR", kind, body))
            self.state.changed.notify_all()

    def compact(self) -> None:
        """Forget history: older versions, and continue tokens of lists begun before, are gone."""
        with self.state.changed:
            self.state.version += 1
            self.state.oldest = self.state.version
            self.state.history.clear()

    def end_streams(self, *, cut: bool = False) -> None:
        """End all watches, properly or in the middle of a line."""
        with self.state.changed:
            self.state.epoch += 1
            self.state.cut = cut
            self.state.changed.notify_all()

    def renumber(self, version: int) -> None:
        """All objects have other versions, as after a restore of the data base: nothing older can be resumed."""
        with self.state.changed:
            self.state.version = version
            self.state.oldest = version
            self.state.history.clear()
            for table in self.state.objects.values():
                for body in table.values():
                    body["metadata"]["resourceVersion"] = str(version)

    def fault(self, fault: Fault) -> Fault:
        """From now on this."""
        with self.state.changed:
            self.state.faults.append(fault)
        return fault

    def mend(self) -> None:
        """No more faults."""
        with self.state.changed:
            self.state.faults.clear()

    def asked(self, path: str, **query: str) -> list[Request]:
        """Requests for a path, with at least these parameters."""
        with self.state.changed:
            return [one for one in self.state.requests if one.path == path and query.items() <= one.query.items()]

    def kubeconfig(self, token: str = "", token_file: str = "") -> str:
        """The text of a kubeconfig for this server."""
        user = {"tokenFile": token_file} if token_file else {"token": token} if token else {}
        cluster = {"server": self.url, **({"certificate-authority": self._certificate[0]} if self._certificate else {})}
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "fake",
                "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
                "clusters": [{"name": "fake", "cluster": cluster}],
                "users": [{"name": "fake", "user": user}],
            }
        )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def break_connections(self) -> None:
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are no news."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    state: State

    def log_message(self, format: str, *arguments: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        """The only method an observer needs."""
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        with self.state.changed:
            self.state.requests.append(Request(parts.path, query, dict(self.headers), time.monotonic()))
            fault = self._fault(parts.path, query)
            token = self.headers.get("authorization", "").partition(" ")[2]
            is_known = self.state.tokens is None or token in self.state.tokens
        if fault and fault.until:
            fault.until.wait(60)
        if not is_known:
            self.status(401, "Unauthorized")
        elif fault and fault.act:
            fault.act(self)
        elif fault and fault.status:
            self.status(fault.status, fault.message, fault.retry_after)
        elif parts.path in COLLECTIONS:
            kind = COLLECTIONS[parts.path]
            self._watch(kind, query) if query.get("watch") in ("1", "true") else self._list(kind, query)
        else:
            self._one(parts.path)

    def status(self, code: int, message: str, retry_after: str = "") -> None:
        """A Status object as the whole answer."""
        self._json(_status(code, "", message), code, {"Retry-After": retry_after} if retry_after else {})

    def begin_chunks(self) -> None:
        """The head of a stream."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

    def chunk(self, data: bytes) -> None:
        """A piece of a stream; an empty one ends it."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _fault(self, path: str, query: dict[str, str]) -> Fault | None:
        for fault in self.state.faults:
            if fault.times and path.startswith(fault.path) and fault.only(query):
                fault.times -= 1
                return fault
        return None

    def _json(self, body: Object, code: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(body).encode(), code, headers)

    def _send(self, data: bytes, code: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _is_metadata(self) -> bool:
        return "PartialObjectMetadata" in self.headers.get("accept", "")

    def _list(self, kind: str, query: dict[str, str]) -> None:
        with self.state.changed:
            version, start = self.state.version, 0
            if "continue" in query:
                version, start = (int(part) for part in query["continue"].split("-"))
                if version < self.state.oldest:
                    version = -1
            items = [body for body in self.state.objects[kind].values() if _is_selected(body, query)]
        if version < 0:
            self.status(410, "The provided continue parameter is too old")
            return
        limit = int(query.get("limit", "0")) or len(items)
        page, left = items[start : start + limit], max(0, len(items) - start - limit)
        metadata: Object = {"resourceVersion": str(version)}
        if left:
            metadata |= {"continue": f"{version}-{start + limit}"}
            metadata |= {} if query.get("fieldSelector") else {"remainingItemCount": left}
        name = "PartialObjectMetadata" if self._is_metadata() else kind
        head = json.dumps({"kind": f"{name}List", "apiVersion": "v1", "metadata": metadata})
        self._send(head[:-1].encode() + b', "items": [' + b",".join(self._text(body) for body in page) + b"]}")

    def _text(self, body: Object) -> bytes:
        """An object as JSON, made once and kept: lists of thousands of objects are measured with this server."""
        if self._is_metadata():
            return json.dumps(self._shown(body)).encode()
        with self.state.changed:
            key = (body["metadata"]["uid"], body["metadata"]["resourceVersion"])
            text = self.state.texts.get(key)
            if text is None:
                text = self.state.texts[key] = json.dumps(body).encode()
        return text

    def _shown(self, body: Object) -> Object:
        if not self._is_metadata():
            return body
        return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": body["metadata"]}

    def _one(self, path: str) -> None:
        _, _, rest = path.partition("/namespaces/")
        parts = rest.split("/")
        with self.state.changed:
            known = self.state.objects.get(OWNERS.get(parts[1], ""), {}) if len(parts) == 3 else {}
            found = [body for body in known.values() if [body["metadata"]["namespace"], body["metadata"]["name"]] == [parts[0], parts[2]]]
        if found:
            self._json(self._shown(found[0]))
        else:
            self.status(404, "not found")

    def _watch(self, kind: str, query: dict[str, str]) -> None:
        version = int(query.get("resourceVersion") or self.state.version)
        if version > self.state.version:
            self.status(504, f"Timeout: Too large resource version: {version}, current: {self.state.version}", "1")
            return
        # Before the answer begins: whoever has seen that can end the stream.
        with self.state.changed:
            epoch = self.state.epoch
            is_gone = version < self.state.oldest
        self.begin_chunks()
        end_s = time.monotonic() + float(query.get("timeoutSeconds", "300"))
        if is_gone:
            self._event("ERROR", _status(410, "Expired", "too old resource version"))
            self.chunk(b"")
            return
        wants_bookmarks = query.get("allowWatchBookmarks") == "true"
        for change in self._changes(kind, version, end_s, epoch):
            if change.type == "LINE":
                self.chunk(change.body["line"])
            elif change.type == "ERROR":
                self._event("ERROR", change.body)
                break
            elif change.type == "BOOKMARK":
                if wants_bookmarks:
                    self._event("BOOKMARK", change.body)
                    self.state.bookmarks.append((change.kind, change.version))
            elif _is_selected(change.body, query):
                self._event(change.type, self._shown(change.body))
        if self.state.cut and epoch != self.state.epoch:
            self.chunk(b'{"type":"MODIF')
            self.close_connection = True
            return
        self.chunk(b"")

    def _event(self, type_: str, body: Object) -> None:
        self.chunk(json.dumps({"type": type_, "object": body}).encode() + b"\n")

    def _changes(self, kind: str, version: int, end_s: float, epoch: int) -> Iterator[Change]:
        """What happens to a kind after a version, until the watch is to end."""
        bookmark_s = time.monotonic() + self.state.bookmark_s
        while True:
            with self.state.changed:
                fresh = [change for change in _after(self.state.history, version) if change.kind == kind]
                version = max(version, self.state.version)
                if not fresh:
                    self.state.changed.wait(max(0.0, min(end_s, bookmark_s) - time.monotonic()))
                is_over = epoch != self.state.epoch or time.monotonic() >= end_s
            yield from fresh
            if is_over and not fresh:
                return
            if time.monotonic() >= bookmark_s:
                bookmark_s += self.state.bookmark_s
                yield Change(version, "BOOKMARK", kind, {"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": str(version)}})


def _status(code: int, reason: str, message: str) -> Object:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}


def _after(history: list[Change], version: int) -> list[Change]:
    at = len(history)
    while at and history[at - 1].version > version:
        at -= 1
    return history[at:]


def _is_selected(body: Object, query: dict[str, str]) -> bool:
    selector = query.get("fieldSelector", "")
    if not selector:
        return True
    name, separator, value = selector.partition("!=") if "!=" in selector else selector.partition("=")
    if name != "spec.nodeName" or not separator:
        raise ValueError(f"field selector {selector!r} is not known here")
    is_equal = str((body.get("spec") or {}).get("nodeName", "")) == value
    return is_equal != (separator == "!=")
