"""The command line: verbs, exit codes, and what is said when something is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.agent.process import ROOT, run

NO_PRIVILEGE = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
WITHOUT_BCC = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /usr/lib/python3/dist-packages && exec "$@"', "sh")


def test_version_tells_everything_that_matters() -> None:
    """Agent, Python, kernel, the bcc of the system's interpreter, and the OpenTelemetry packages."""
    done = run("--version")
    told = dict(line.split(" ", 1) for line in done.stdout.splitlines())

    assert done.returncode == 0
    assert set(told) >= {"otel-ebpf-receiver", "python", "kernel", "bcc", "opentelemetry-sdk", "opentelemetry-exporter-otlp"}
    assert told["bcc"][0].isdigit()


@pytest.mark.parametrize("arguments", [(), ("fly",), ("run", "--nonsense"), ("validate",), ("replay",), ("config",)])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    """A wrong command line is exit code 2 with a usage line."""
    done = run(*arguments)

    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_help_is_no_error() -> None:
    """Help shows the verbs."""
    done = run("--help")

    assert done.returncode == 0
    assert all(verb in done.stdout for verb in ("run", "validate", "preflight", "replay", "config"))


def test_validate(tmp_path: Path) -> None:
    """A good file is said to be good; of a bad one all problems are told, one per line, exit code 78."""
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("http: {target_bytes: 512}\n")
    bad.write_text("http: {target_bytes: 5}\nhtpp: {}\n")

    fine, wrong = run("validate", "--config", str(good)), run("validate", "--config", str(bad))

    assert (fine.returncode, fine.stderr) == (0, "")
    assert wrong.returncode == 78
    assert wrong.stderr.splitlines() == [
        f"otel-ebpf-receiver: {bad}:1: http.target_bytes: 5 is too small; the least is 64 bytes",
        f"otel-ebpf-receiver: {bad}:2: htpp: is not known; did you mean 'http'?",
    ]


@pytest.mark.parametrize("verb", [("run",), ("preflight",), ("config", "print")])
def test_a_wrong_configuration_never_starts(verb: tuple[str, ...], tmp_path: Path) -> None:
    """Every verb that reads a configuration refuses a wrong one, from a file and from a variable."""
    file = tmp_path / "bad.yaml"
    file.write_text("nonsense: 1\n")

    assert run(*verb, "--config", str(file)).returncode == 78
    assert run(*verb, OTEL_TRACES_SAMPLER="sometimes").returncode == 78


def test_configuration_is_shown() -> None:
    """`config print` gives values and origins, `config schema` a JSON schema."""
    printed = run("config", "print", "--config", str(ROOT / "config" / "otel-ebpf-receiver.yaml"), OTEL_SERVICE_NAME="edge")
    schema = run("config", "schema")

    assert "environment OTEL_SERVICE_NAME" in printed.stdout
    assert json.loads(schema.stdout)["additionalProperties"] is False


def test_a_missing_interface_is_named_beside_those_that_exist() -> None:
    """Exit code 1, before anything is compiled or attached."""
    done = run("run", "--interface", "nope0", "--interface", "lo")

    assert done.returncode == 1
    assert "'nope0' does not exist; there are:" in done.stderr
    assert "lo" in done.stderr.split("there are:")[1]
    assert done.stdout == ""


@pytest.mark.parametrize("verb", ["run", "preflight"])
def test_missing_privilege_is_told_with_its_remedy(verb: str) -> None:
    """Exit code 77, and every capability that is missing."""
    done = run(verb, prefix=NO_PRIVILEGE)

    assert done.returncode == 77
    for name in ("CAP_BPF", "CAP_NET_RAW", "CAP_PERFMON"):
        assert f"{name}: missing; add {name}" in done.stderr


def test_missing_bcc_is_told_with_its_package() -> None:
    """Exit code 77 and the package's name; `--version` says it too and is no error."""
    done, version = run("run", "--interface", "lo", prefix=WITHOUT_BCC), run("--version", prefix=WITHOUT_BCC)

    assert done.returncode == 77
    assert "python3-bpfcc" in done.stderr
    assert version.returncode == 0
    assert "bcc none" in version.stdout


def test_a_certificate_that_is_not_there_is_refused() -> None:
    """Instead of going on with other roots, as exporters do: exit code 78 and the file's name."""
    done = run(
        "run", "--interface", "lo", OTEL_EXPORTER_OTLP_ENDPOINT="https://127.0.0.1:4318", OTEL_EXPORTER_OTLP_CERTIFICATE="/nowhere.pem"
    )

    assert done.returncode == 78
    assert "/nowhere.pem" in done.stderr


def test_preflight_shows_what_each_interface_showed() -> None:
    """A table of what is allowed, and one of the interfaces."""
    done = run("preflight", "--interface", "lo", "--seconds", "0.1")

    assert done.returncode == 0
    assert "CAP_PERFMON" in done.stdout
    assert [line.split()[:2] for line in done.stdout.splitlines() if line.startswith("lo ")] == [["lo", "loopback"]]
