"""A container of a pod as a node would run it: what kubelet resolves and containerd writes, done here, and a real runc with the image's file system.

Nothing is added to what the pod asks: capabilities are in the bounding, permitted and effective sets and never ambient, the seccomp profile is
containerd's own, the memory limit is a real control group, locked memory is at the usual 64 KiB.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import resource
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.agent.process import ROOT
from tests.capture.namespaces import Namespace
from tests.interop.server import binary

Object = dict[str, Any]
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
RUNTIME = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
]
"""Of what a runtime gives when nothing is dropped; the manifests drop all."""


class Cluster(Protocol):
    """What kubelet asks of the API server."""

    certificate: Path

    def object(self, path: str) -> Object: ...

    def token(self, namespace: str, account: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Host:
    """The node: its network, name and address, and how its pods find the API server."""

    network: Namespace
    name: str
    address: str
    api: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Container:
    """A running one. `log` has its output."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command inside, as `kubectl exec` runs it."""
        return subprocess.run(["runc", "exec", self.name, *command], capture_output=True, text=True, timeout=120, check=False)

    @property
    def pid(self) -> int:
        """Of its first process, on this machine."""
        state = subprocess.run(["runc", "state", self.name], check=True, capture_output=True, text=True).stdout
        return int(json.loads(state)["pid"])

    def status(self, key: str) -> str:
        """A line of /proc/PID/status."""
        found = re.search(rf"^{key}:\s*(.*)$", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        assert found is not None, key
        return found[1]

    def memory(self, file: str) -> int:
        """A number of its memory control group, in bytes."""
        return int(Path(f"/sys/fs/cgroup/memory/{self.name}/{file}").read_text())

    def terminate(self, seconds: float) -> int:
        """SIGTERM, as kubelet sends it; its exit status."""
        subprocess.run(["runc", "kill", self.name, "TERM"], check=True, capture_output=True)
        return self.process.wait(seconds)


def image() -> tuple[Path, Object]:
    """The root file system that scripts/image makes, and the configuration in its archive."""
    made = subprocess.run([ROOT / "scripts/image"], capture_output=True, text=True, timeout=3600, check=False)
    assert made.returncode == 0, made.stderr[-3000:]
    folder = Path(made.stdout.strip())
    with tarfile.open(folder / "otel-ebpf-receiver.oci.tar") as archive:

        def blob(path: str) -> Object:
            file = archive.extractfile(path)
            assert file is not None
            return dict(json.load(file))

        def named(about: Object) -> Object:
            return blob(f"blobs/{about['digest'].replace(':', '/')}")

        manifest = named(blob("index.json")["manifests"][0])
        return folder / "rootfs", dict(named(manifest["config"])["config"])


def variables(container: Object, namespace: str, cluster: Cluster, host: Host) -> dict[str, str]:
    """The environment, references resolved in order, as kubelet does."""
    fields = {"spec.nodeName": host.name, "status.hostIP": host.address}
    found = dict(host.api)
    for one in container.get("env", []):
        if "value" in one:
            found[one["name"]] = re.sub(r"\$\((\w+)\)", lambda match: found.get(match[1], match[0]), one["value"])
        elif "fieldRef" in one["valueFrom"]:
            found[one["name"]] = fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
        else:
            reference = one["valueFrom"]["secretKeyRef"]
            with contextlib.suppress(OSError) if reference.get("optional") else contextlib.nullcontext():
                data = cluster.object(f"/api/v1/namespaces/{namespace}/secrets/{reference['name']}")["data"]
                found[one["name"]] = base64.b64decode(data[reference["key"]]).decode()
    return found


def _bind(source: Path, destination: str) -> Object:
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", "rprivate", "ro"]}


def mounts(pod: Object, container: Object, namespace: str, cluster: Cluster, folder: Path) -> list[Object]:
    """Volumes written below `folder`, and where they go; the service account's token among them."""
    account = folder / "account"
    account.mkdir()
    (account / "token").write_text(cluster.token(namespace, pod["serviceAccountName"]))
    (account / "ca.crt").write_bytes(cluster.certificate.read_bytes())
    (account / "namespace").write_text(namespace)
    found = [_bind(account, ACCOUNT)] if pod["automountServiceAccountToken"] else []
    volumes = {one["name"]: one for one in pod["volumes"]}
    for mount in container["volumeMounts"]:
        place = folder / mount["name"]
        place.mkdir()
        source = volumes[mount["name"]]["configMap"]["name"]
        for name, text in cluster.object(f"/api/v1/namespaces/{namespace}/configmaps/{source}")["data"].items():
            (place / name).write_text(text)
        found.append(_bind(place, mount["mountPath"]))
    (folder / "hosts").write_text("127.0.0.1 localhost\n")
    return [*found, _bind(folder / "hosts", "/etc/hosts")]


def specification(
    pod: Object, container: Object, image_config: Object, env: Mapping[str, str], volumes: list[Object], host: Host
) -> Object:
    """The runtime's configuration, as containerd makes it of a pod in the node's network."""
    context = container["securityContext"]
    added = [f"CAP_{name}" for name in context["capabilities"]["add"]]
    capabilities = sorted({*added, *([] if "ALL" in context["capabilities"]["drop"] else RUNTIME)})
    profile = {**pod.get("securityContext", {}), **context}["seccompProfile"]["type"]
    seccomp = json.loads(subprocess.check_output([binary("seccomp"), *capabilities])) if profile == "RuntimeDefault" else None
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Mi")) << 20
    system = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "mode=0620"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    ]
    names = ["pid", "ipc", "mount"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": context["runAsUser"], "gid": context["runAsGroup"]},
            "args": [*(container.get("command") or image_config["Entrypoint"]), *container["args"]],
            "env": [*image_config["Env"], *(f"{name}={value}" for name, value in env.items())],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "noNewPrivileges": not context["allowPrivilegeEscalation"],
            "rlimits": [
                {"type": "RLIMIT_MEMLOCK", "soft": 65536, "hard": 65536},
                {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": min(524288, resource.getrlimit(resource.RLIMIT_NOFILE)[1])},
            ],
        },
        "root": {"path": "rootfs", "readonly": context["readOnlyRootFilesystem"]},
        "mounts": [*system, *volumes],
        "linux": {
            "namespaces": [*({"type": name} for name in names), {"type": "network", "path": f"/run/netns/{host.network.name}"}],
            "resources": {"memory": {"limit": limit}, "devices": [{"allow": False, "access": "rwm"}]},
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            **({"seccomp": seccomp} if seccomp else {}),
        },
    }


@contextlib.contextmanager
def running(pod: Object, namespace: str, cluster: Cluster, host: Host, folder: Path) -> Iterator[Container]:
    """The first container of a pod, until the end of the `with` block."""
    subprocess.run([ROOT / "scripts/setup", "packages", "runc"], check=True, capture_output=True)
    root, image_config = image()
    container = pod["containers"][0]
    name = f"oer-test-{os.getpid()}"
    for part in ("volumes", "bundle/rootfs", "upper", "work"):
        (folder / part).mkdir(parents=True)
    env = variables(container, namespace, cluster, host)
    volumes = mounts(pod, container, namespace, cluster, folder / "volumes")
    made = specification(pod, container, image_config, env, volumes, host)
    made["linux"]["cgroupsPath"] = f"/{name}"
    (folder / "bundle/config.json").write_text(json.dumps(made))
    merged = folder / "bundle/rootfs"
    layers = f"lowerdir={root},upperdir={folder}/upper,workdir={folder}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", str(merged)], check=True)
    log = folder / "container.log"
    try:
        with log.open("wb") as output:
            command = ["runc", "run", "--bundle", str(folder / "bundle"), name]
            process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        yield Container(name, log, process)
    finally:
        subprocess.run(["runc", "delete", "--force", name], capture_output=True, check=False)
        with contextlib.suppress(subprocess.TimeoutExpired, UnboundLocalError):
            process.wait(30)
        subprocess.run(["umount", str(merged)], check=True)
