"""What preflight concludes from what it found."""

from __future__ import annotations

import dataclasses
import os
import resource
from typing import Any

import pytest

from otel_ebpf_receiver.errors import PreflightError
from otel_ebpf_receiver.kernel.preflight import OLDEST, Bcc, Facts, Verdict, capabilities, find_bcc, format_table, gather, judge, require

GOOD = Facts("6.1.0-20-amd64", "x86_64", frozenset({"BPF", "NET_RAW", "PERFMON"}), jit="1", bcc="0.26.0")
SMALL = {"release": "5.10.0", "memory_lock": 65536, "memory_lock_most": 65536}


def verdicts(**changes: Any) -> dict[str, Verdict]:
    """What is not fine about a good machine with `changes`."""
    return {one.subject: one.verdict for one in judge(dataclasses.replace(GOOD, **changes)) if one.verdict is not Verdict.OK}


def test_three_capabilities_are_enough() -> None:
    """BPF, NET_RAW and PERFMON on a modern kernel: nothing to complain of."""
    assert verdicts() == {}
    require(judge(GOOD))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"capabilities": frozenset({"BPF", "NET_RAW"})}, {"CAP_PERFMON": Verdict.REFUSED}),
        ({"capabilities": frozenset({"SYS_ADMIN", "NET_RAW"})}, {}),
        ({"capabilities": frozenset({"SYS_ADMIN"})}, {"CAP_NET_RAW": Verdict.REFUSED}),
        ({"release": "4.19.0"}, {"kernel": Verdict.REFUSED}),
        ({"release": "5.9.16"}, {"kernel": Verdict.REFUSED}),
        ({"machine": "aarch64"}, {"architecture": Verdict.REFUSED}),
        ({"in_user_namespace": True}, {"user namespace": Verdict.REFUSED}),
        ({"jit": "0"}, {"BPF JIT": Verdict.REFUSED}),
        ({"bcc": "", "bcc_error": "No module named 'bcc'"}, {"bcc": Verdict.REFUSED}),
        (SMALL, {"memory lock": Verdict.REFUSED}),
        ({**SMALL, "memory_lock_most": resource.RLIM_INFINITY}, {}),
        ({**SMALL, "capabilities": GOOD.capabilities | {"SYS_RESOURCE"}}, {}),
        ({**SMALL, "release": "5.11.0"}, {}),
    ],
)
def test_what_is_missing_is_named(changes: dict[str, Any], expected: dict[str, Verdict]) -> None:
    """Each thing that keeps the agent from running, and only that."""
    assert verdicts(**changes) == expected


def test_an_architecture_can_be_forced() -> None:
    """Then it is a warning."""
    found = judge(dataclasses.replace(GOOD, machine="aarch64"), any_architecture=True)

    assert [one.verdict for one in found if one.subject == "architecture"] == [Verdict.WARNING]


def test_all_refusals_are_told_with_their_remedy() -> None:
    """One line each."""
    facts = dataclasses.replace(GOOD, capabilities=frozenset(), bcc="", bcc_error="no bcc")

    with pytest.raises(PreflightError) as caught:
        require(judge(facts))

    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["CAP_BPF", "CAP_NET_RAW", "CAP_PERFMON", "bcc"]
    assert "python3-bpfcc" in lines[-1]


def test_capabilities_are_read_by_their_bits() -> None:
    """Bits of the effective set, whatever else is in it."""
    status = "Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t000000c000002400\n"

    assert capabilities(status) == {"BPF", "PERFMON", "NET_RAW"}
    assert capabilities("") == frozenset()


def test_this_machine_can_be_read() -> None:
    """The tests run as root, so the facts say so."""
    facts = gather(Bcc("0.26.0"))

    assert {"BPF", "NET_RAW", "PERFMON"} <= facts.capabilities
    assert facts.release == os.uname().release
    assert facts.kernel >= OLDEST


def test_bcc_is_asked_of_an_interpreter() -> None:
    """The system's has it; one that is not there says so."""
    assert find_bcc().version
    assert find_bcc("/nowhere/python3").error == "no interpreter '/nowhere/python3'"


def test_a_table_is_aligned() -> None:
    """Columns begin under their heads, and no line ends in blanks."""
    assert format_table([("a", "bb", ""), ("ccc", "d", "e")], ("x", "y", "z")) == "x    y   z\na    bb\nccc  d   e"
