"""Packs a root file system as an OCI image archive of one layer: `archive.py ROOT FILE`.

The image specification of the Open Container Initiative: a layout of blobs by their digest, an index, a manifest and a configuration.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

CONFIG = {
    "Entrypoint": ["otel-ebpf-receiver"],
    "Cmd": ["run"],
    "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1"],
    "StopSignal": "SIGTERM",
    "Labels": {
        "org.opencontainers.image.title": "otel-ebpf-receiver",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.base.name": "debian:trixie-slim",
    },
}


def layer(root: Path, to: Path) -> tuple[str, str]:
    """Writes the layer, packed. Returns the digests unpacked and packed."""
    flags = ["--sort=name", "--numeric-owner", "--xattrs", "--format=posix", "--pax-option=delete=atime,delete=ctime"]
    unpacked = hashlib.sha256()
    with subprocess.Popen(["tar", "-C", str(root), *flags, "-c", "."], stdout=subprocess.PIPE) as packing, to.open("wb") as file:
        assert packing.stdout is not None
        with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
            while piece := packing.stdout.read(1 << 20):
                unpacked.update(piece)
                packed.write(piece)
    if packing.returncode:
        raise SystemExit(f"tar failed with {packing.returncode}")
    with to.open("rb") as file:
        return unpacked.hexdigest(), hashlib.file_digest(file, "sha256").hexdigest()


def archive(root: Path, to: Path, name: str) -> None:
    """Writes the archive."""
    with tempfile.TemporaryDirectory(dir=to.parent) as folder, tarfile.open(to, "w") as out:

        def add(path: str, data: bytes) -> None:
            about = tarfile.TarInfo(path)
            about.size = len(data)
            out.addfile(about, io.BytesIO(data))

        def blob(kind: str, value: Any) -> dict[str, Any]:
            data = json.dumps(value, indent=1).encode()
            digest = hashlib.sha256(data).hexdigest()
            add(f"blobs/sha256/{digest}", data)
            return {"mediaType": f"application/vnd.oci.image.{kind}.v1+json", "digest": f"sha256:{digest}", "size": len(data)}

        packed = Path(folder) / "layer.tar.gz"
        unpacked_digest, digest = layer(root, packed)
        out.add(packed, f"blobs/sha256/{digest}")
        layers = [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": f"sha256:{digest}", "size": os.path.getsize(packed)}
        ]
        platform = {"architecture": "amd64", "os": "linux"}
        rootfs = {"type": "layers", "diff_ids": [f"sha256:{unpacked_digest}"]}
        config = blob("config", {**platform, "config": CONFIG, "rootfs": rootfs, "history": [{"created_by": "scripts/image"}]})
        manifest = blob(
            "manifest",
            {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers},
        )
        names = {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": f"docker.io/library/{name}"}
        add(
            "index.json", json.dumps({"schemaVersion": 2, "manifests": [{**manifest, "platform": platform, "annotations": names}]}).encode()
        )
        add("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')


if __name__ == "__main__":
    version = subprocess.check_output([sys.executable, "-m", "hatchling", "version"], text=True).strip()
    archive(Path(sys.argv[1]), Path(sys.argv[2]), f"otel-ebpf-receiver:{version}")
