"""What the agent tells live beside what tshark reads from a capture that tcpdump took of the same link at the same time."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.agent.process import curl, run
from tests.capture.namespaces import Namespace
from tests.live.links import pair
from tests.live.servers import nginx
from tests.live.taps import PATIENCE_S
from tests.live.watched import watching

LAST = "/last-of-all"


@contextlib.contextmanager
def capturing(here: Namespace, name: str, file: Path) -> Iterator[None]:
    """tcpdump on the link; ends when the answer to LAST is in the file."""
    command = here.command("tcpdump", "--immediate-mode", "-U", "-B", "65536", "-s", "0", "-i", name, "-w", str(file), "tcp")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "listening on" in line:
                    break
            yield
            deadline = time.monotonic() + PATIENCE_S
            while not re.search(f"GET {LAST} .*HTTP/1.1 404".encode(), file.read_bytes(), re.DOTALL):
                assert time.monotonic() < deadline, "the last answer does not come to the capture"
                time.sleep(0.1)
        finally:
            process.send_signal(signal.SIGINT)
            out = process.communicate(timeout=PATIENCE_S)[1]
    lost = re.search(r"(\d+) packets dropped by kernel", out)
    assert lost is not None
    assert lost[1] == "0", "tcpdump missed packets: its capture is no yardstick"


def tshark(file: Path, what: str, *fields: str) -> list[tuple[str, ...]]:
    """Fields of every packet that matches; one packet may hold several messages, whose values are joined by a comma."""
    shown = [argument for name in fields for argument in ("-e", name)]
    command = ["tshark", "-n", "-r", str(file), "-Y", what, "-T", "fields", "-E", "separator=|", "-E", "aggregator=,", *shown]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    rows = []
    for line in out.splitlines():
        columns = [column.split(",") for column in line.split("|")]
        rows += list(zip(*columns, strict=True))
    return rows


def talk(here: Namespace, host: str, root: Path) -> None:
    """Some hundred exchanges of all kinds."""
    base = f"http://{host}"
    for name in ("small", "large", "empty", "none", "teapot", "moved", "missing"):
        curl(here.command(), f"{base}/{name}")
    curl(here.command(), f"{base}/large", "-I")
    curl(here.command(), f"{base}/style.css", "--compressed")
    curl(here.command(), f"{base}/posted", "-d", "x=" + "y" * 5000)
    curl(here.command(), f"{base}/upload/one", "-H", "Expect: 100-continue", "-T", str(root / "payload"))
    many = [part for number in range(150) for part in ("-o", "/dev/null", f"{base}/many{number}")]
    subprocess.run(here.command("curl", "-sS", *many), check=True, capture_output=True, timeout=60)
    parallel = [part for number in range(40) for part in ("-o", "/dev/null", f"{base}/parallel{number}")]
    subprocess.run(here.command("curl", "-sS", "-Z", "--parallel-max", "8", *parallel), check=True, capture_output=True, timeout=60)


def test_as_many_as_tshark_counts(tmp_path: Path) -> None:
    """As many requests and final answers, the same methods, targets and statuses; and `replay` of the capture tells the same again."""
    file = tmp_path / "link.pcap"
    (tmp_path / "payload").write_bytes(bytes(300_000))
    with pair() as (here, there), nginx(there, tmp_path), watching(here, "--interface", "v0") as watched:
        with capturing(here, "v0", file):
            talk(here, "10.77.0.2", tmp_path)
            talk(here, "[fd77::2]", tmp_path)
            curl(here.command(), f"http://10.77.0.2{LAST}")
        told = watched.finish()
    again = [json.loads(line) for line in run("replay", str(file)).stdout.splitlines()]

    requests = tshark(file, "http.request", "http.request.method", "http.request.uri")
    answers = tshark(file, "http.response", "http.response.code")
    final = sorted(int(code) for (code,) in answers if not code.startswith("1"))
    assert len(told.lines) == told.counted() == len(requests) == len(final) == 403
    assert sorted((line["method"], line["path"]) for line in told.lines) == sorted(requests)
    assert sorted(line["status"] for line in told.lines) == final
    live = sorted((line["method"], line["path"], line["status"], line["request_bytes"], line["response_bytes"]) for line in told.lines)
    names = ("http.request.method", "url.path", "http.response.status_code", "http.request.body.size", "http.response.body.size")
    assert sorted(tuple(one[name] for name in names) for one in again) == live
