"""Holds what the kernel made of a case against what the case says and what its bytes say."""

from __future__ import annotations

from typing import Any

from otel_ebpf_receiver.sources.http.record import Flag
from tests.kernel import expectation, harness
from tests.kernel.harness import Kernel
from tests.wire import staging
from tests.wire.cases import Case, CaseError, Expected, unescape
from tests.wire.exchange import Exchange
from tests.wire.flow import Flow
from tests.wire.staging import Play

ENUMS = {"error": {"none": 0, "reset": 1, "closed": 2}, "side": {"none": 0, "client": 1, "server": 2}}
TEXTS = {"host", "agent", "tracestate", "target", "method_text", "trace_id", "parent_id"}
TIMES = ("request_start_ns", "request_end_ns", "response_start_ns", "response_end_ns")


def flag_bits(text: str) -> int:
    """Bits of a list of names with commas between."""
    return sum(Flag[name.upper()].value for name in text.split(",") if name and name != "none")


def override(want: dict[str, Any], fields: dict[str, str]) -> dict[str, Any]:
    """What a case says of an exchange takes the place of what its bytes say; `*`: anything."""
    for name, value in fields.items():
        if value == "*":
            want.pop(name, None)
        elif name == "flags":
            want[name] = flag_bits(value)
        elif name in ENUMS:
            want[name] = ENUMS[name][value]
        elif name in ("trace_id", "parent_id"):
            want[name] = bytes.fromhex(value)
        elif name in TEXTS:
            want[name] = unescape(value)
        else:
            want[name] = expectation.OneOf(tuple(int(v) for v in value.split("|"))) if "|" in value else int(value)
    if want.get("flags", 0) & Flag.UNCERTAIN_END:
        want.pop("response_end_ns", None)
    return want


def wanted(case: Case, play: Play) -> list[tuple[Expected, dict[str, Any]]]:
    """Every line of the case with the fields that its record must hold."""
    truths: list[tuple[Flow, list[Exchange], int]] = [
        (flow, truth, i) for flow, truth in zip(play.flows, play.truths, strict=True) for i in range(len(truth))
    ]
    out = []
    for line in case.expected:
        if "no-reference" in case.settings:
            want: dict[str, Any] = {"method_text": line.method, "target": line.target, "status": line.status, "error": 0, "side": 0}
        else:
            found = next((t for t in truths if (t[1][t[2]].method, t[1][t[2]].target) == (line.method, line.target)), None)
            if found is None:
                raise CaseError(f"{case.name}: no exchange {line.method!r} {line.target!r} in its bytes")
            truths.remove(found)
            want = expectation.expected(*found)
            if case.lossy:
                for name in (*TIMES, "number"):
                    want.pop(name, None)
        named = override(want | {"status": line.status}, line.fields)
        clash = [name for name in ("status", *line.fields) if name in want and name in named and want[name] != named[name]]
        if clash and not case.lossy and "no-reference" not in case.settings:
            raise CaseError(f"{case.name}: {line.target!r}: its bytes say otherwise: {[(name, want[name]) for name in clash]}")
        out.append((line, named))
    if truths and not case.lossy and "no-reference" not in case.settings:
        raise CaseError(f"{case.name}: its bytes hold exchanges that it does not name: {[t[1][t[2]].target for t in truths]}")
    return out


def complaints(case: Case, play: Play, got: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the records of a case; nothing when all is right."""
    out, left = [], list(got)
    for line, want in wanted(case, play):
        match = next((g for g in left if g["method_text"] == line.method and g["target"] == want.get("target", g["target"])), None)
        if match is None:
            if line.must:
                out.append(f"missing: {line.method!r} {line.target[:40]!r} {line.status}")
            continue
        left.remove(match)
        wrong = expectation.differences(want, match)
        if wrong:
            out.append(f"wrong: {line.method!r} {line.target[:40]!r}: {harness.shown(wrong)}")
    return out + [f"invented: {harness.brief(g)}" for g in left]


def run(kernel: Kernel, case: Case, mode: str, at: int = 0) -> tuple[list[str], Play]:
    """Plays the case in one mode and one place of cutting."""
    play = staging.play(case, mode, kernel.next(), at, kernel.clock_ns)
    kernel.drain()
    before = kernel.counters() if mode == "whole" else {}
    for flow in play.flows:
        kernel.feed(flow.frames)
        kernel.clock_ns = flow.now_ns + 1000
    out = complaints(case, play, kernel.drain())
    if mode == "whole" and case.counters:
        after = kernel.counters()
        grown = {name: after.get(name, 0) - before.get(name, 0) for name in case.counters}
        out += [f"counter {name} grew by {grown[name]}, must grow by {by}" for name, by in case.counters.items() if grown[name] != by]
    return out, play
