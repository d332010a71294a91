"""Makes a throw-away authority, a server and a client certificate with openssl, for tests of TLS and mutual TLS."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of PEM files, all signed by `authority`; the server's names are 127.0.0.1, ::1 and localhost."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def make_certificates(folder: Path) -> Certificates:
    """Creates the files in `folder`."""
    authority, authority_key = folder / "ca.pem", folder / "ca.key"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    _openssl("req", "-x509", *curve, "-keyout", authority_key, "-out", authority, "-subj", "/CN=test authority")
    for name, extension in (("server", "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost"), ("client", "extendedKeyUsage=clientAuth")):
        request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
        extensions.write_text(extension + "\n")
        _openssl("req", *curve[:-2], "-keyout", folder / f"{name}.key", "-out", request, "-subj", f"/CN={name}")
        signing = ("-CA", authority, "-CAkey", authority_key, "-CAcreateserial", "-days", "2", "-extfile", extensions)
        _openssl("x509", "-req", "-in", request, *signing, "-out", folder / f"{name}.pem")
    return Certificates(authority, folder / "server.pem", folder / "server.key", folder / "client.pem", folder / "client.key")


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
