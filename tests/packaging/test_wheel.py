"""The wheel carries the kernel side and runs outside the checkout. It is built by the back end of the environment, without a network."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an environment that holds the wheel and sees the locked packages, but not the checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    site_packages = next(folder.glob("lib/python*/site-packages"))
    # A .pth found through another .pth is not read, so the editable installation of the checkout stays out.
    (site_packages / "locked.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--quiet", "--no-input", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], cwd=folder, check=True)
    return folder


def test_wheel_carries_every_file_of_the_kernel_side(wheel: Path) -> None:
    """The wheel's `_bpf` folder is the tree's `bpf` folder, byte for byte."""
    tree = {path.relative_to(ROOT / "bpf").as_posix(): path.read_bytes() for path in (ROOT / "bpf").rglob("*") if path.is_file()}

    prefix = "otel_ebpf_receiver/_bpf/"
    with zipfile.ZipFile(wheel) as archive:
        carried = {name.removeprefix(prefix): archive.read(name) for name in archive.namelist() if name.startswith(prefix)}

    assert "http/record.h" in tree
    assert carried == tree


def test_wheel_carries_the_live_page(wheel: Path) -> None:
    """Every file of the page and of its libraries, licences included, byte for byte."""
    folder = "otel_ebpf_receiver/status/page/static"
    tree = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in (ROOT / folder).rglob("*") if path.is_file()}

    with zipfile.ZipFile(wheel) as archive:
        carried = {name: archive.read(name) for name in archive.namelist() if name.startswith(folder)}

    assert f"{folder}/vendor/uPlot.LICENSE.txt" in tree
    assert carried == tree


def test_wheel_carries_the_explained_configuration(wheel: Path) -> None:
    """The configuration file that explains every key comes with the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        carried = archive.read("otel_ebpf_receiver/_config/otel-ebpf-receiver.yaml")

    assert carried == (ROOT / "config" / "otel-ebpf-receiver.yaml").read_bytes()


def test_wheel_holds_nothing_but_the_package(wheel: Path) -> None:
    """Tests, benchmarks, scripts and bytecode stay out of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    assert {name.split("/")[0] for name in names} == {"otel_ebpf_receiver", f"otel_ebpf_receiver-{VERSION}.dist-info"}
    assert not [name for name in names if name.endswith((".pyc", ".orig"))]


def test_installed_wheel_runs_outside_the_checkout(installed: Path) -> None:
    """The command of an installed wheel imports the installed package, not the checkout, and tells its version."""
    bin_folder = installed / "bin"
    where = "import otel_ebpf_receiver; print(otel_ebpf_receiver.__file__)"

    package = subprocess.check_output([bin_folder / "python", "-c", where], cwd="/", text=True)
    version = subprocess.check_output([bin_folder / "otel-ebpf-receiver", "--version"], cwd="/", text=True)

    assert package.startswith(str(installed))
    assert VERSION in version
