"""The cases on disk hold by themselves: they parse, and what they expect is what the reference parser reads in their bytes."""

from __future__ import annotations

import pytest

from tests.kernel import judge, loaded
from tests.wire import staging
from tests.wire.cases import Case, CaseError, parse, unescape


@pytest.mark.parametrize("case", loaded.cases(), ids=lambda case: f"{case.where}/{case.name}")
def test_case_says_what_its_bytes_say(case: Case) -> None:
    """Every expected exchange is one that a strict reader finds, and none that it finds is left out."""
    for mode in staging.modes(case):
        for at in list(staging.runs(case, mode))[:5]:
            judge.wanted(case, staging.play(case, mode, 1, at))


def test_every_point_has_cases() -> None:
    """Packets, TCP, heads, bodies, pairing, endings and what is not HTTP each have a file of cases."""
    assert {case.where[0] for case in loaded.cases()} == set("1234567")


def test_escapes() -> None:
    """Escapes stand for bytes, and repetition is spelled out before them."""
    assert unescape(r"a\r\n\x00\0\t\\\{3:x\n}") == b"a\r\n\x00\x00\t\\x\nx\nx\n"


@pytest.mark.parametrize(
    "text",
    ["> before any case", "=== a\n@ nonsense", "=== a\n> x\nnonsense", "=== a\n! client dance", "=== a\n@ skip cut:", "=== a\n> \\q"],
)
def test_a_broken_case_is_refused(text: str) -> None:
    """A line that means nothing is an error with its place, not a case that tests nothing."""
    with pytest.raises(CaseError, match="x:"):
        list(parse(text, "x"))
