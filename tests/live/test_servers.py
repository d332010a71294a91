"""Real servers and real clients: what curl and wrk say they got is what the agent tells."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.agent.process import curl, http_server
from tests.live.links import pair
from tests.live.servers import nginx
from tests.live.watched import SERVER, watching

EXCHANGES: dict[str, tuple[str, ...]] = {
    "small": (),
    "large": (),
    "empty": (),
    "HEAD of large": ("-I",),
    "compressed, so chunked": ("--compressed",),
    "range": ("-r", "100-299"),
    "not modified": ("-z", "Fri, 31 Dec 2100 00:00:00 GMT"),
    "HTTP/1.0": ("--http1.0",),
    "OPTIONS": ("-X", "OPTIONS"),
    "form": ("-d", "x=" + "y" * 9000),
    "upload after 100 Continue": ("-H", "Expect: 100-continue", "-T"),
    "upload in chunks": ("-H", "Transfer-Encoding: chunked", "-H", "Expect:", "-T"),
    "no content": (),
    "moved": (),
    "teapot": (),
    "missing": (),
}
PATHS = {
    "HEAD of large": "/large",
    "compressed, so chunked": "/style.css",
    "range": "/large",
    "not modified": "/small",
    "HTTP/1.0": "/large",
    "OPTIONS": "/teapot",
    "form": "/posted",
    "upload after 100 Continue": "/upload/one",
    "upload in chunks": "/upload/two",
    "no content": "/none",
}
UPLOAD = 2_000_000


@pytest.mark.parametrize("host", ["10.77.0.2", "[fd77::2]"])
def test_nginx_and_curl(tmp_path: Path, host: str) -> None:
    """Method, path, status and both body sizes of every kind of exchange are what curl itself says, over both IP versions."""
    said = []
    (tmp_path / "upload").write_bytes(bytes(UPLOAD))
    with pair() as (here, there), nginx(there, tmp_path), watching(here) as watched:
        for name, arguments in EXCHANGES.items():
            file = [str(tmp_path / "upload")] if arguments and arguments[-1] == "-T" else []
            path = PATHS.get(name, "/" + name)
            command = here.command(
                "curl", "-sS", "-g", "-o", "/dev/null", "-w", "%{json}", "--max-time", "20", *arguments, *file, f"http://{host}{path}"
            )
            got = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout)
            # Of a chunked upload curl counts the framing too.
            uploaded = UPLOAD if file else got["size_upload"]
            said.append((got["method"], path, got["http_code"], uploaded, got["size_download"], got["local_port"]))
        told = watched.finish()

    lines = [
        (one["method"], one["path"], one["status"], one["request_bytes"], one["response_bytes"], int(one["client"].rpartition(":")[2]))
        for one in told.lines
    ]
    assert sorted(lines) == sorted(said)
    assert {span.kind for span in told.spans} == {SERVER}
    assert told.counted() == len(EXCHANGES)
    interim = [span.path for span in told.spans if "interim" in span.attributes.get("otel_ebpf_receiver.flags", [])]
    assert interim == ["/upload/one"]
    assert not [span.path for span in told.spans if span.is_error]
    sizes = {span.path: span.attributes["http.request.body.size"] for span in told.spans if span.path.startswith("/upload")}
    assert sizes == {"/upload/one": UPLOAD, "/upload/two": UPLOAD}


PIPELINE = """
init = function(args)
  local all = {}
  for i = 1, 16 do all[i] = wrk.format(nil, "/wrk") end
  request16 = table.concat(all)
end
request = function() return request16 end
"""


@pytest.mark.parametrize("how", ["kept alive", "a connection each", "16 deep"])
def test_wrk(tmp_path: Path, how: str) -> None:
    """Of the requests that wrk completed none is missing, and beyond them there are only those that it left unfinished."""
    connections, depth = 8, 16 if how == "16 deep" else 1
    arguments = {"kept alive": [], "a connection each": ["-H", "Connection: close"], "16 deep": ["-s", str(tmp_path / "pipeline.lua")]}[how]
    (tmp_path / "pipeline.lua").write_text(PIPELINE)
    command = ["wrk", "-t", "1", "-c", str(connections), "-d", "1s", *arguments, "http://10.77.0.2/wrk"]
    with (
        pair() as (here, there),
        nginx(there, tmp_path),
        watching(here, console=False, env={"OTEL_TRACES_SAMPLER": "always_off"}) as watched,
    ):
        out = subprocess.run(here.command(*command), check=True, capture_output=True, text=True, timeout=30).stdout
        told = watched.finish()

    found = re.search(r"(\d+) requests in", out)
    assert found is not None, out
    completed = int(found[1])
    assert completed > 1000
    assert completed <= told.counted() <= completed + connections * depth
    assert told.kernel["http_lost"] == 0
    assert told.kernel["http_opened"] <= completed + connections * depth


def test_python_server() -> None:
    """Python's own server, with the HTTP/1.0 that it speaks by default for an answer until the connection's end, and its errors."""
    with pair() as (here, there), http_server(there.command()), watching(here) as watched:
        codes = [
            curl(here.command(), "http://10.77.0.2:8080/otel-ebpf-receiver.yaml"),
            curl(here.command(), "http://10.77.0.2:8080/", "--http1.0"),
            curl(here.command(), "http://10.77.0.2:8080/nothing"),
            curl(here.command(), "http://10.77.0.2:8080/", "-X", "DELETE"),
        ]
        told = watched.finish()

    lines = [(one["method"], one["path"], str(one["status"]), one["error"]) for one in told.lines]
    assert lines == [
        ("GET", "/otel-ebpf-receiver.yaml", codes[0], None),
        ("GET", "/", codes[1], None),
        ("GET", "/nothing", codes[2], None),
        ("DELETE", "/", codes[3], "501"),
    ]
    assert codes == ["200", "200", "404", "501"]
