"""The verbs that end by themselves and need the kernel programs: `preflight` and `replay`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from otel_ebpf_receiver.agent.load import Stop, load, require_interfaces
from otel_ebpf_receiver.errors import AgentError
from otel_ebpf_receiver.kernel import preflight as checks
from otel_ebpf_receiver.kernel.pcap import require

if TYPE_CHECKING:
    from otel_ebpf_receiver.config.schema import Config
    from otel_ebpf_receiver.kernel.preflight import Finding

HEADS = ("check", "verdict", "found", "remedy")


def preflight(config: Config, stop: Stop, *, any_architecture: bool, seconds: float) -> int:
    """Prints what is allowed and, where the agent could run, what the interfaces show. Raises `PreflightError` where it could not."""
    findings = checks.judge(checks.gather(checks.find_bcc()), any_architecture=any_architecture)
    _print(findings)
    checks.require(findings)
    require_interfaces(config)
    with load(config, stop, ["otel_ebpf_receiver.capture.look"]) as programs:
        from otel_ebpf_receiver.capture.look import HEADS as SIGHT_HEADS
        from otel_ebpf_receiver.capture.look import look

        print(f"\nThe programs were compiled and verified (bcc {programs.bcc_version}).", flush=True)
        if seconds > 0:
            print(f"Looking at the interfaces for {seconds:g} s ...\n", flush=True)
            print(checks.format_table([sight.row() for sight in look(programs, config.capture, seconds)], SIGHT_HEADS))
    return 0


def _print(findings: list[Finding]) -> None:
    rows = [(one.subject, one.verdict.value, one.found, one.remedy) for one in findings]
    print(checks.format_table(rows, HEADS), flush=True)


def replay(path: str, config: Config, stop: Stop, *, any_architecture: bool) -> int:
    """Prints one JSON object per exchange of a capture file. Raises `AgentError` where it breaks off, after what could be read."""
    checks.require(checks.judge(checks.gather(), any_architecture=any_architecture))
    require(path)
    with load(config, stop, ["otel_ebpf_receiver.agent.watchers", "otel_ebpf_receiver.agent.options"]) as programs:
        from otel_ebpf_receiver.agent.options import http_options, telemetry_options
        from otel_ebpf_receiver.agent.watchers import Printed
        from otel_ebpf_receiver.kernel import replay as feeding
        from otel_ebpf_receiver.sources.http import source

        addresses = config.capture.addresses
        programs.watch(only=bool(addresses.include), include=addresses.include, exclude=addresses.exclude)
        printed = Printed(source(http_options(config)), telemetry_options(config))
        result = feeding.replay(path, programs, printed.emit)
    sys.stdout.flush()
    if result.frames or not result.error:
        print(result.summary(), file=sys.stderr)
    if result.error:
        raise AgentError(str(result.error)) from result.error
    return 0
