"""The lists that the set-up installs: exact, hashed, free of addresses, and in step with pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LISTS = ("run", "dev")


def pinned(name: str) -> dict[str, tuple[str, str]]:
    """Return version and whole entry by package of `requirements/<name>.txt`."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    entries = re.split(r"\n(?=[a-z0-9])", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    requirements = [(Requirement(entry.split("\\")[0].strip()), entry) for entry in entries if entry.strip()]
    return {canonicalize_name(one.name): (str(one.specifier).removeprefix("=="), entry) for one, entry in requirements}


def wanted(name: str) -> list[Requirement]:
    """Return what pyproject.toml asks for in the list of that name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["build"], *(extras["dev"] if name == "dev" else [])]
    return [Requirement(one) for one in asked]


@pytest.mark.parametrize("name", LISTS)
def test_every_entry_is_exact_and_hashed(name: str) -> None:
    """Each entry names one version and the hashes of its files, and no entry an address."""
    entries = pinned(name)

    unhashed = [package for package, (_, entry) in entries.items() if "--hash=sha256:" not in entry]
    inexact = [package for package, (version, _) in entries.items() if not re.fullmatch(r"([0-9]+!)?[0-9][0-9a-z.]*", version)]

    assert len(entries) > 20
    assert unhashed == []
    assert inexact == []
    assert "://" not in (ROOT / "requirements" / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", LISTS)
def test_lists_are_in_step_with_the_project(name: str) -> None:
    """Everything that pyproject.toml asks for is in the list, in a version that it allows."""
    entries = pinned(name)

    stale = [str(one) for one in wanted(name) if not one.specifier.contains(entries.get(canonicalize_name(one.name), ("0", ""))[0])]

    assert stale == []


def test_tests_run_against_what_users_get() -> None:
    """The developers' list holds the users' list, version by version."""
    users = {(name, version) for name, (version, _) in pinned("run").items()}
    developers = {(name, version) for name, (version, _) in pinned("dev").items()}

    assert users <= developers


def test_bcc_is_left_to_the_distribution() -> None:
    """No list holds a bcc of PyPI: it would hide the distribution's, which fits the system's LLVM."""
    assert not {"bcc", "bpfcc", "python3-bpfcc"} & pinned("dev").keys()
