"""Network namespaces for tests: made under a name of their own, gone afterwards, entered by one thread or by a child process."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

_CLONE_NEWNET = 0x40000000
_NUMBERS = itertools.count()


def ip(*arguments: str) -> str:
    """Runs `ip` and returns what it prints."""
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True, slots=True)
class Namespace:
    """One network namespace."""

    name: str

    def ip(self, *arguments: str) -> str:
        """Runs `ip` in it."""
        return ip("-n", self.name, *arguments)

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs `arguments` in it."""
        return ["ip", "netns", "exec", self.name, *arguments]

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread is in it meanwhile."""
        with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{self.name}") as here:
            _set(here.fileno())
            try:
                yield
            finally:
                _set(before.fileno())


def _set(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """A fresh namespace, its loopback up."""
    made = Namespace(f"oer-test-{os.getpid()}-{next(_NUMBERS)}")
    ip("netns", "add", made.name)
    try:
        made.ip("link", "set", "lo", "up")
        yield made
    finally:
        ip("netns", "del", made.name)


def join(left: Namespace, right: Namespace, *, names: tuple[str, str] = ("v0", "eth0"), net: str = "10.77.0") -> None:
    """A veth pair between two namespaces, up, with the addresses .1 and .2 of `net`."""
    left.ip("link", "add", names[0], "type", "veth", "peer", "name", names[1], "netns", right.name)
    for side, name, number in ((left, names[0], 1), (right, names[1], 2)):
        side.ip("addr", "add", f"{net}.{number}/24", "dev", name)
        side.ip("link", "set", name, "up")
