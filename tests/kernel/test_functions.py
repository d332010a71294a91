"""Functions that the verifier walks by themselves: how they are linked, and what that saves."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import pytest

from benchmarks import verifier
from otel_ebpf_receiver.errors import PreflightError
from otel_ebpf_receiver.kernel import bytecode
from otel_ebpf_receiver.kernel.assemble import KernelPart, assemble
from otel_ebpf_receiver.kernel.bytecode import Bytecode, Cache, Code, load
from otel_ebpf_receiver.kernel.compile import linked

FIRST = 1000
MOVE, EXIT = struct.pack("<BBhi", 0xB7, 0, 0, 0), struct.pack("<BBhi", 0x95, 0, 0, 0)
HELPER = struct.pack("<BBhi", 0x85, 0, 0, 26)
MOST = 300_000
"""Instructions that the verifier may process for all programs with default options: a start waits for it, most of a second at twice as many."""


def call(number: int) -> bytes:
    """A call as bcc compiles it: the function's number where a helper's would be."""
    return struct.pack("<BBhi", 0x85, 0, 0, FIRST + number)


def calls(code: bytes) -> dict[int, int]:
    """Where each call of a function leads, by its place."""
    words = [struct.unpack_from("<BBhi", code, at) for at in range(0, len(code), 8)]
    return {at: at + 1 + value for at, (opcode, registers, _, value) in enumerate(words) if opcode == 0x85 and registers == 0x10}


def test_functions_are_linked_behind_the_program() -> None:
    """Each once, those that functions call too; helpers stay as they are."""
    codes = {"inner": MOVE + EXIT, "outer": call(0) + HELPER + EXIT, "unused": EXIT}

    code, begins = linked(call(1) + call(0) + call(1) + EXIT, ["inner", "outer", "unused"], codes, FIRST)

    assert begins == [(4, "outer"), (7, "inner")]
    assert calls(code) == {0: 4, 1: 7, 2: 4, 4: 7}
    assert len(code) == 9 * 8
    assert code[5 * 8 : 6 * 8] == HELPER


def test_a_program_without_functions_stays() -> None:
    """Nothing is put behind it."""
    assert linked(MOVE + HELPER + EXIT, [], {}, FIRST) == (MOVE + HELPER + EXIT, [])


def test_the_verifier_walks_little() -> None:
    """Every program passes, and all together cost no more than a start can bear."""
    default = verifier.choices()[0]
    with verifier.descriptors() as fds:
        found = list(verifier.measured(default.name, verifier.compiled(default, Cache()), fds))

    assert not [one.refusal for one in found if one.refusal]
    assert 0 < sum(one.processed for one in found) < MOST


def test_what_was_kept_before_there_were_functions_is_not_taken(tmp_path: Path) -> None:
    """The form of an older version: as if nothing had been kept."""
    cache, one = Cache(tmp_path), {"code": base64.b64encode(MOVE + EXIT).decode(), "maps": []}
    cache.put("old", {"bcc": "0", "maps": {}, "programs": {"one": one}})
    cache.put("new", {"bcc": "0", "maps": {}, "programs": {"one": {**one, "functions": []}}})

    assert cache.get("old") is None
    assert cache.get("new") == Bytecode("0", {}, {"one": Code(MOVE + EXIT, (), ())})


def test_another_compiler_answers_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What one linked is not what another would: the same request has another place in the cache, and only then."""
    request = {"text": "int x;", "flags": ("-g0",)}
    before = Cache.key(request)
    same, other = tmp_path / "same.py", tmp_path / "other.py"
    same.write_bytes(bytecode.COMPILER.read_bytes())
    other.write_bytes(bytecode.COMPILER.read_bytes() + b"#")

    monkeypatch.setattr(bytecode, "COMPILER", same)
    assert Cache.key(request) == before
    monkeypatch.setattr(bytecode, "COMPILER", other)
    assert Cache.key(request) != before


def test_functions_have_one_owner() -> None:
    """Two sources whose functions have the same name are refused by it."""
    with pytest.raises(ValueError, match="name a function alike: twice"):
        assemble([KernelPart("one", (), functions=("twice", "once")), KernelPart("two", (), functions=("twice",))])


def test_a_map_that_is_refused_says_why() -> None:
    """What the kernel said, and no guess at memory."""
    with pytest.raises(PreflightError, match=r"^map 'odd': the kernel refused it \(Invalid argument\); `otel-ebpf-receiver preflight`"):
        load(Bytecode("0", {"odd": (9999, 4, 4, 1, 0)}, {}))


def test_a_refusal_names_what_may_be_off() -> None:
    """A value that was never set is returned. Where the setting cannot be read (another network namespace), this is all that is said of the JIT compiler."""
    with pytest.raises(PreflightError, match=r"(?s)program 'one': the verifier refused it .*bpf_jit_enable.*R0"):
        load(Bytecode("0", {}, {"one": Code(EXIT, (), ())}))
