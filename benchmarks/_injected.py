"""Exchanges that cross a pair of links without any client or server: frames made beforehand, sent by packet sockets at both ends, at a set rate.

    python -m benchmarks._injected --host NAMESPACE --pod NAMESPACE --rate N --seconds N --depth N

A client in `host` (the first address of the pair) asks a server in `pod` (the second) on many kept connections: GETs and their answers with a body of 13
bytes, sequence numbers going on as TCP's do; `--depth` of them pipelined, so that a frame holds so many. Frames are addressed to no station, so both kernels
drop them right behind their taps. In turns the connections of one half ask while those of the other are answered, so no answer is before its question.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.capture.namespaces import Namespace

AT_ONCE = 400
"""Exchanges that are asked for in one turn."""
CLIENT, SERVER, PORT, FIRST_PORT = "10.77.0.1", "10.77.0.2", 80, 20_000
REQUEST = b"GET /api/v1/users/123 HTTP/1.1\r\nHost: 10.77.0.2\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\nConnection: keep-alive\r\n\r\nHello, World!"
CATCH_UP_S = 0.05
NOBODY = bytes.fromhex("0200000000ff")
SYN, ACK, PUSH = 0x02, 0x10, 0x08
_SEQUENCE, _FLAGS = slice(38, 46), 47
_libc = ctypes.CDLL(None, use_errno=True)
Frames = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.uint32]


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr"""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vector", ctypes.POINTER(_Vector)),
        ("vectors", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint32),
    )


class Sender:
    """Segments of one size of many connections, in one direction."""

    def __init__(self, sock: socket.socket, ports: npt.NDArray[np.int64], payload: bytes, *, is_answer: bool) -> None:
        ends = (SERVER, CLIENT) if is_answer else (CLIENT, SERVER)
        self._sock = sock
        self.frames = np.tile(np.frombuffer(_frame(*ends, payload), np.uint8), (len(ports), 1))
        port, at = ports.astype(">u2").view(np.uint8).reshape(-1, 2), 36 if is_answer else 34
        self.frames[:, at : at + 2] = port
        rows, width = self.frames.shape
        self._vectors = (_Vector * rows)(*((self.frames.ctypes.data + row * width, width) for row in range(rows)))
        self._messages = (_Message * rows)()
        for message, vector in zip(self._messages, self._vectors, strict=True):
            message.vector, message.vectors = ctypes.pointer(vector), 1

    def send(self, sequence: Numbers, acknowledged: Numbers, flags: int = ACK | PUSH) -> None:
        """One segment of each connection."""
        self.frames[:, _SEQUENCE] = np.stack((sequence, acknowledged), axis=1).astype(">u4").view(np.uint8)
        self.frames[:, _FLAGS] = flags
        done = 0
        while done < len(self._messages):
            left = ctypes.byref(self._messages, done * ctypes.sizeof(_Message))
            sent = _libc.sendmmsg(self._sock.fileno(), left, len(self._messages) - done, 0)
            if sent < 0:
                raise OSError(ctypes.get_errno(), "sendmmsg")
            done += sent


def _frame(source: str, destination: str, payload: bytes) -> bytes:
    """An Ethernet frame with ports and sequence numbers to be filled in; no checksum, which nobody here looks at."""
    ip = (
        struct.pack(">BBHHHBBH", 0x45, 0, 40 + len(payload), 0, 0x4000, 64, 6, 0) + socket.inet_aton(source) + socket.inet_aton(destination)
    )
    tcp = struct.pack(">HHIIBBHHH", PORT, PORT, 0, 0, 0x50, 0, 65535, 0, 0)
    return NOBODY + bytes.fromhex("020000000001") + b"\x08\x00" + ip + tcp + payload


@dataclass(frozen=True, slots=True)
class Connections:
    """Some connections: what is sent in which direction, by how much each then goes on, and where it is."""

    asks: Sender
    answers: Sender
    steps: tuple[int, int]
    client: Numbers
    server: Numbers

    def open(self, opening: tuple[Sender, Sender]) -> None:
        """The three segments of the beginning."""
        first, second = opening
        first.send(self.client - 1, self.server * 0, SYN)
        second.send(self.server - 1, self.client, SYN | ACK)
        first.send(self.client, self.server, ACK)

    def ask(self) -> None:
        """The next requests of each."""
        self.asks.send(self.client, self.server)
        self.client[:] += np.uint32(self.steps[0])

    def answer(self) -> None:
        """What answers them."""
        self.answers.send(self.server, self.client)
        self.server[:] += np.uint32(self.steps[1])


@contextlib.contextmanager
def connections(host: Namespace, pod: Namespace, depth: int) -> Iterator[list[Connections]]:
    """Two halves of open connections over the pair v0 and eth0."""
    payloads = REQUEST * depth, ANSWER * depth
    random = np.random.default_rng(1)
    with contextlib.ExitStack() as stack:
        socks = []
        for where, link in ((host, "v0"), (pod, "eth0")):
            with where.inside():
                socks.append(stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)))
                socks[-1].bind((link, 0))
        made = []
        for half in range(2):
            ports = FIRST_PORT + half * AT_ONCE + np.arange(AT_ONCE // depth)
            starts = random.integers(1 << 32, size=(2, len(ports)), dtype=np.uint32)
            asks, answers = (
                Sender(sock, ports, payload, is_answer=sock is socks[1]) for sock, payload in zip(socks, payloads, strict=True)
            )
            made.append(Connections(asks, answers, (len(payloads[0]), len(payloads[1])), *starts))
            made[-1].open((Sender(socks[0], ports, b"", is_answer=False), Sender(socks[1], ports, b"", is_answer=True)))
        yield made


def inject(host: Namespace, pod: Namespace, per_s: int, seconds: float, depth: int) -> dict[str, float]:
    """Exchanges sent, and the seconds that took. Turns that come late are made up for as far as `CATCH_UP_S`: beyond that the rate is lower, not higher later."""
    turns = round(per_s * seconds / AT_ONCE)
    with connections(host, pod, depth) as halves:
        start_s = due_s = time.monotonic()
        for turn in range(turns + 1):
            if turn < turns:
                halves[turn % 2].ask()
            if turn:
                halves[(turn - 1) % 2].answer()
            now_s = time.monotonic()
            due_s = max(due_s + AT_ONCE / per_s, now_s - CATCH_UP_S)
            time.sleep(max(0.0, due_s - now_s))
        took_s = time.monotonic() - start_s
    return {"exchanges": turns * AT_ONCE, "seconds": took_s}


def main() -> None:
    """Prints what `inject` says, as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--host", required=True)
    arguments.add_argument("--pod", required=True)
    arguments.add_argument("--rate", type=int, required=True)
    arguments.add_argument("--seconds", type=float, required=True)
    arguments.add_argument("--depth", type=int, default=1)
    options = arguments.parse_args()
    print(json.dumps(inject(Namespace(options.host), Namespace(options.pod), options.rate, options.seconds, options.depth)))


if __name__ == "__main__":
    main()
