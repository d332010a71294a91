"""A small service for the tests of the page, run as a program: answers HTTP/1.1 and asks other services first.

`service.py ADDRESS PORT PATH=URL[,URL]…`; a path that begins with `/broken` is answered 500, one with `/missing` 404, `/slow` after 80 ms.
"""

from __future__ import annotations

import http.server
import sys
import time
import urllib.request


class Handler(http.server.BaseHTTPRequestHandler):
    """Asks what its path needs, then answers."""

    protocol_version = "HTTP/1.1"
    needs: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def do_GET(self) -> None:
        status = 500 if self.path.startswith("/broken") else 404 if self.path.startswith("/missing") else 200
        if self.path.startswith("/slow"):
            time.sleep(0.08)
        for prefix, urls in self.needs:
            if self.path.startswith(prefix):
                for url in urls:
                    try:
                        urllib.request.urlopen(url, timeout=5).read()
                    except OSError:
                        status = 502
        body = b"x" * 700
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


def main() -> None:
    """Serve until killed."""
    address, port, *needs = sys.argv[1:]
    Handler.needs = tuple((prefix, tuple(urls.split(","))) for prefix, urls in (one.split("=", 1) for one in needs))
    http.server.ThreadingHTTPServer((address, int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
