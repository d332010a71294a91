"""The captures that the tests of real traffic share: made once, by the tools that people use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.replay import live


@pytest.fixture(scope="session")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Files of the same conversation by name: pcap, short (128 bytes a frame), cooked (v1, v2), pcapng, loopback, BIG TCP."""
    if missing := live.missing_tools():
        pytest.skip(f"needs {', '.join(missing)}: run as root after apt-get install iproute2 nginx-light curl tcpdump tshark")
    root = tmp_path_factory.mktemp("site")
    tcpdump = ("tcpdump", "--immediate-mode", "-U", "-B", "32768")
    commands: dict[str, tuple[str, ...]] = {
        "veth.pcap": (*tcpdump, "-i", "veth0", "-s", "0"),
        "short.pcap": (*tcpdump, "-i", "veth0", "-s", "128"),
        "nano.pcap": (*tcpdump, "-i", "veth0", "-s", "0", "--time-stamp-precision=nano"),
        "cooked.pcap": (*tcpdump, "-i", "any", "-s", "0", "-y", "LINUX_SLL"),
        "cooked2.pcap": (*tcpdump, "-i", "any", "-s", "0", "-y", "LINUX_SLL2"),
        "veth.pcapng": ("dumpcap", "-q", "-i", "veth0"),
        "short.pcapng": ("dumpcap", "-q", "-i", "veth0", "-s", "128"),
    }
    with live.site(root) as place:
        with contextlib.ExitStack() as stack:
            for name, command in commands.items():
                stack.enter_context(place.capture(*command, to=root / name, sentinel="GET /last6"))
            live.talk(place, live.SERVER, "last")
            live.talk(place, f"[{live.SERVER6}]", "last6")
        with place.capture(*tcpdump, "-i", "lo", to=root / "lo.pcap", sentinel="GET /last6"):
            live.talk(place, "127.0.0.1", "last", where=place.server)
            live.talk(place, "[::1]", "last6", where=place.server)
        with place.capture(*tcpdump, "-i", "veth0", "-s", "128", to=root / "terse.pcap", sentinel=f"GET /{live.TERSE_SIZES[-1]} "):
            live.talk_tersely(place)
        place.allow_big_tcp()
        with place.capture(*tcpdump, "-i", "veth0", to=root / "big.pcap", sentinel="GET /last6"):
            place.curl(f"http://[{live.SERVER6}]/huge")
            place.curl(f"http://[{live.SERVER6}]/last6")
        yield {name: root / name for name in (*commands, "lo.pcap", "terse.pcap", "big.pcap")}
