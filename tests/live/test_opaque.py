"""What is not HTTP/1 is left alone after its first bytes and counted by its kind; what was HTTP/1 until it became something else is told."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.process import curl
from tests.capture.namespaces import Namespace
from tests.live.links import pair
from tests.live.servers import connect, nginx, path_of, read_head, serving, wait_listening
from tests.live.taps import receive
from tests.live.watched import watching

LOOKS_LIKE_HTTP = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.contextmanager
def openssl_server(here: Namespace, root: Path, port: int = 443) -> Iterator[None]:
    """`openssl s_server` that answers over TLS as a web server does."""
    key, certificate = root / "key.pem", root / "certificate.pem"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=a"]
    subprocess.run([*request, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    command = ["openssl", "s_server", "-quiet", "-accept", str(port), "-key", str(key), "-cert", str(certificate), "-www"]
    with subprocess.Popen(
        here.command(*command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_listening(here, port)
            yield
        finally:
            process.kill()


def speak(peer: socket.socket, head: bytes) -> None:
    """After the first head: sends back what comes."""
    while data := peer.recv(65536):
        peer.sendall(data)


def test_tls(tmp_path: Path) -> None:
    """TLS is counted by connection and gives nothing, whatever stands in it."""
    with pair() as (here, there), openssl_server(there, tmp_path), watching(here) as watched:
        codes = [curl(here.command(), "https://10.77.0.2/", "-k", "--tls-max", version) for version in ("1.2", "1.3")]
        told = watched.finish()

    assert codes == ["200", "200"]
    assert (told.lines, told.counted()) == ([], 0)
    assert told.kernel["flows_tls"] == 2
    assert told.kernel["flows_http"] == told.kernel["flows_other"] == told.kernel["http_opened"] == 0
    assert told.kernel["opaque"] > 4


def test_http2_from_the_first_byte(tmp_path: Path) -> None:
    """HTTP/2 with prior knowledge is counted and gives nothing."""
    with pair() as (here, there), nginx(there, tmp_path), watching(here) as watched:
        codes = [curl(here.command(), f"http://10.77.0.2:82/{name}", "--http2-prior-knowledge") for name in ("small", "large")]
        told = watched.finish()

    assert codes == ["200", "200"]
    assert (told.lines, told.counted()) == ([], 0)
    assert told.kernel["flows_http2"] == 2
    assert told.kernel["http_opened"] == 0


@pytest.mark.parametrize("first", [b"SSH-2.0-none\r\n\r\n", b"\0\1\2\3\r\n\r\n", b"*1\r\n$4\r\nPING\r\n\r\n", b"PING a\r\n\r\n"])
def test_anything_else(first: bytes) -> None:
    """Other protocols turn opaque at their first bytes: a request inside them is theirs."""
    with pair() as (here, there), serving(there, speak), watching(here) as watched:
        with connect(here, "10.77.0.2") as peer:
            peer.sendall(first)
            peer.sendall(LOOKS_LIKE_HTTP)
            receive(peer, len(LOOKS_LIKE_HTTP))
        told = watched.finish()

    assert (told.lines, told.counted()) == ([], 0)
    assert told.kernel["flows_other"] == 1
    assert told.kernel["http_opened"] == 0


def switch(peer: socket.socket, head: bytes) -> None:
    """Switches protocols as asked, then sends back what comes; a refused CONNECT goes on as HTTP."""
    if path_of(head) == "refused.example:443":
        peer.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        read_head(peer)
        peer.sendall(ANSWER)
        return
    answer = (
        b"HTTP/1.1 200 Connected\r\n\r\n"
        if head.startswith(b"CONNECT")
        else b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
    )
    peer.sendall(answer)
    speak(peer, head)


def test_upgrade_and_connect(tmp_path: Path) -> None:
    """101 and a CONNECT that worked are an exchange each, and what follows is opaque though it reads like HTTP; a refused one goes on."""
    upgrade = b"GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with pair() as (here, there), serving(there, switch), watching(here) as watched:
        for request in (upgrade, b"CONNECT open.example:443 HTTP/1.1\r\nHost: open.example:443\r\n\r\n"):
            with connect(here, "10.77.0.2") as peer:
                peer.sendall(request)
                read_head(peer)
                peer.sendall(LOOKS_LIKE_HTTP + ANSWER)
                receive(peer, len(LOOKS_LIKE_HTTP + ANSWER))
        with connect(here, "10.77.0.2") as peer:
            peer.sendall(b"CONNECT refused.example:443 HTTP/1.1\r\nHost: refused.example:443\r\n\r\n")
            read_head(peer)
            receive(peer, 2)
            peer.sendall(b"GET /goes-on HTTP/1.1\r\nHost: a\r\n\r\n")
            receive(peer, len(ANSWER))
        told = watched.finish()

    assert sorted((line["method"], line["path"], line["status"]) for line in told.lines) == [
        ("CONNECT", "open.example:443", 200),
        ("CONNECT", "refused.example:443", 403),
        ("GET", "/goes-on", 200),
        ("GET", "/socket", 101),
    ]
    assert told.kernel["flows_upgraded"] == 2
    assert not [span for span in told.spans if span.is_error]


def test_connections_that_are_older_than_the_agent(tmp_path: Path) -> None:
    """Joined in the middle: TLS is told from HTTP, and a kept HTTP connection is told as soon as its pairs are certain.

    The first request seen may answer to one that was not: it may be refused, and is counted then.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pair() as (here, there), openssl_server(there, tmp_path), serving(there, keep_answering), contextlib.ExitStack() as stack:
        secured = stack.enter_context(context.wrap_socket(connect(here, "10.77.0.2", 443)))
        kept = stack.enter_context(connect(here, "10.77.0.2"))
        kept.sendall(LOOKS_LIKE_HTTP.replace(b"hidden", b"before"))
        receive(kept, len(ANSWER))
        with watching(here) as watched:
            for name in (b"first", b"second", b"third"):
                kept.sendall(LOOKS_LIKE_HTTP.replace(b"hidden", name))
                receive(kept, len(ANSWER))
            secured.sendall(LOOKS_LIKE_HTTP)
            while secured.recv(65536):
                continue
            told = watched.finish()

    paths = [line["path"] for line in told.lines]
    assert paths[-2:] == ["/second", "/third"]
    assert paths[:-2] in ([], ["/first"])
    assert told.kernel["http_opened"] == 3
    assert told.kernel["http_answered"] == len(paths)
    assert told.kernel["http_unpaired"] + told.kernel["http_given_up"] >= 3 - len(paths)
    assert told.kernel["flows_joined"] >= 2
    assert told.kernel["flows_tls"] == 1


def keep_answering(peer: socket.socket, head: bytes) -> None:
    """Answers each request on the connection."""
    while head:
        peer.sendall(ANSWER)
        head = read_head(peer)
