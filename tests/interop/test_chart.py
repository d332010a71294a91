"""The chart as helm renders it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.agent.process import ROOT
from tests.chart.rendered import CHART, TRIAL, parsed, values_files
from tests.interop.helm import VERSION, helm, template
from tests.interop.server import binary

files = pytest.mark.parametrize("values", values_files(), ids=lambda path: str(path.stem))


def test_what_is_kept_is_what_is_rendered(tmp_path: Path) -> None:
    """The schema of the values, the examples and the plain manifests in this tree are what `scripts/chart` writes."""
    binary("helm")
    subprocess.run([ROOT / "scripts/chart", tmp_path], check=True, capture_output=True)

    written = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    stale = [str(path) for path, text in written.items() if (ROOT / path).read_text() != text]

    assert len(written) == len(values_files()) + 2
    assert stale == []


@files
def test_lint_is_strict_and_silent(values: Path) -> None:
    """No warning with any of the files of values."""
    done = helm("lint", "--strict", str(CHART), "--values", str(values))

    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("nosuch=1", "'nosuch' not allowed"),
        ("config.capture.tap=x", "'tap' not allowed"),
        ("config.status.port=99999", "maximum"),
        ("config.ids.key=secret", "'ids' not allowed"),
        ("config.exporters.otlp.headers.authorization=secret", "'headers' not allowed"),
        ("otlp.endpoint=collector:4318", "does not match pattern"),
        ("otlp.protocol=http", "must be one of"),
        ("seccompProfile=Localhost", "must be one of"),
        ("podMonitor.enabled=true", "status.onNodeAddress: true"),
    ],
)
def test_wrong_values_are_refused(setting: str, words: str) -> None:
    """A wrong value stops the installation, with words that name it."""
    done = helm("template", "example", str(CHART), "--kube-version", VERSION, "--set", setting)

    assert done.returncode != 0
    assert words in done.stderr
    assert "secret" not in done.stderr.replace(f"'{setting}'", "")


def test_endpoint_may_name_the_release() -> None:
    """What an umbrella chart needs: the address of a Service that bears the release's name."""
    rendered = parsed(template("--set", "otlp.endpoint=http://{{ .Release.Name }}-collector:4318"))

    values = {one["name"]: one.get("value") for one in rendered.agent["env"]}

    assert values["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://example-collector:4318"


def test_trial_is_linted() -> None:
    """The umbrella chart, too."""
    done = helm("lint", "--strict", str(TRIAL))

    assert done.returncode == 0, done.stdout
