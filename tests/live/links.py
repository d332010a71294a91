"""Links that the live tests share: a bridge with ports, and two tun devices that are each other's far side."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
import threading
from collections.abc import Iterator, Sequence

from tests.capture.namespaces import Namespace, join, namespace

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000


@contextlib.contextmanager
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    """A host and a pod behind its link `v0`: 10.77.0.1 and .2, fd77::1 and ::2."""
    with namespace() as host, namespace() as pod:
        join(host, pod)
        host.ip("addr", "add", "fd77::1/64", "dev", "v0", "nodad")
        pod.ip("addr", "add", "fd77::2/64", "dev", "eth0", "nodad")
        yield host, pod


def bridge(host: Namespace, pods: Sequence[Namespace]) -> None:
    """A bridge in `host` with a port `p1`, `p2`, … for each pod, which gets 10.79.0.1, .2, …; the bridge itself has .254."""
    host.ip("link", "add", "br0", "type", "bridge")
    host.ip("addr", "add", "10.79.0.254/24", "dev", "br0")
    host.ip("link", "set", "br0", "up")
    for number, pod in enumerate(pods, 1):
        host.ip("link", "add", f"p{number}", "type", "veth", "peer", "name", "eth0", "netns", pod.name)
        host.ip("link", "set", f"p{number}", "master", "br0", "up")
        pod.ip("addr", "add", f"10.79.0.{number}/24", "dev", "eth0")
        pod.ip("link", "set", "eth0", "up")


def never_learn(host: Namespace, port: str, pod: Namespace) -> None:
    """The bridge never knows that the pod is behind this port: what goes to it floods to every port."""
    host.ip("link", "set", port, "type", "bridge_slave", "learning", "off")
    mac = pod.ip("-br", "link", "show", "eth0").split()[2]
    # It may have been learned already, or not.
    subprocess.run(host.command("bridge", "fdb", "del", mac, "dev", port, "master"), check=False, capture_output=True)


@contextlib.contextmanager
def tunnel() -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces with a device `tun0` each, 10.99.0.1 and .2: what one sends the other gets, without a link header anywhere."""
    with namespace() as here, namespace() as there, contextlib.ExitStack() as stack:
        left, right = _tun(here, "10.99.0.1/24"), _tun(there, "10.99.0.2/24")
        stack.callback(os.close, left)
        stack.callback(os.close, right)
        threads = [threading.Thread(target=_carry, args=ends, daemon=True) for ends in ((left, right), (right, left))]
        for thread in threads:
            thread.start()
            stack.callback(thread.join, 10)
        for side in (here, there):  # ends the threads: a device that is gone has nothing to read
            stack.callback(side.ip, "link", "del", "tun0")
        yield here, there


def _tun(here: Namespace, address: str) -> int:
    with here.inside():
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
    here.ip("addr", "add", address, "dev", "tun0")
    here.ip("link", "set", "tun0", "up")
    return descriptor


def _carry(source: int, target: int) -> None:
    with contextlib.suppress(OSError):
        while packet := os.read(source, 65536):
            os.write(target, packet)
