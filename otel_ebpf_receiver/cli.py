"""The command line: arguments, exit codes, the log's form. The only module that turns an error into an exit.

SIGTERM is caught before anything heavy is imported, also as the first process of a container, where an uncaught one would be ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from otel_ebpf_receiver import memory
from otel_ebpf_receiver.errors import AgentError, ConfigError, ExportError, KubernetesError, PreflightError

if TYPE_CHECKING:
    import argparse

    from otel_ebpf_receiver.config.load import Flag, Loaded

EXIT_RUNTIME = 1
EXIT_USAGE = 2
EXIT_PREFLIGHT = 77
EXIT_CONFIG = 78
PROGRAM = "otel-ebpf-receiver"
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """SIGTERM or SIGINT came while the agent was starting."""


class Stop:
    """A wish to end: a flag, a descriptor that becomes readable, and until `calm` an exception in the main thread."""

    def __init__(self) -> None:
        self.is_requested = False
        self.descriptor, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._raises = True

    def install(self) -> None:
        """Catch SIGTERM and SIGINT from now on."""
        for number in SIGNALS:
            signal.signal(number, self._caught)

    def calm(self) -> None:
        """From now on the flag and the descriptor are watched; no exception any more."""
        self._raises = False
        self.check()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside, nothing is raised; at the end it is, if the wish came meanwhile."""
        self._raises = False
        try:
            yield
        finally:
            self._raises = True
        self.check()

    def check(self) -> None:
        """Raises `Stopped` if the wish is there: an exception inside a handler may have been swallowed (in a finaliser, for one)."""
        if self.is_requested:
            raise Stopped

    def _caught(self, number: int, frame: FrameType | None) -> None:
        first = not self.is_requested
        self.is_requested = True
        if first:
            os.write(self._write, b"x")
            if self._raises:
                raise Stopped


def main(argv: list[str] | None = None) -> int:
    """Entry point. Returns the exit code."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's own threads have nothing to do here, and spin for 60 ms when they begin
    stop = Stop()
    try:
        stop.install()
        if argv is None and sys.argv[1:2] == ["run"]:
            _restart_once(stop)
        return _run_verb(_parse(sys.argv[1:] if argv is None else argv), stop)
    except Stopped:
        return 0
    except BrokenPipeError:
        # Whoever read our output left; what is still buffered must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_RUNTIME
    except AgentError as error:
        for line in str(error).splitlines():
            print(f"{PROGRAM}: {line}", file=sys.stderr)
        return _exit_code(error)


def _restart_once(stop: Stop) -> None:
    """See `memory.in_large_pages`; a signal that comes meanwhile is caught by the program that goes on."""
    if memory.was_restarted():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    stop.check()
    memory.in_large_pages()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _exit_code(error: AgentError) -> int:
    if isinstance(error, PreflightError):
        return EXIT_PREFLIGHT
    return EXIT_CONFIG if isinstance(error, ConfigError | ExportError | KubernetesError) else EXIT_RUNTIME


def _run_verb(arguments: argparse.Namespace, stop: Stop) -> int:
    code: int = arguments.verb(arguments, stop)
    sys.stdout.flush()
    return code


def _parse(argv: list[str]) -> argparse.Namespace:
    import argparse

    parser = argparse.ArgumentParser(PROGRAM, description="Watches HTTP on the wire and exports OpenTelemetry spans and metrics.")
    parser.add_argument(
        "--version", action="store_const", dest="verb", const=_version, help="print the versions of everything that matters"
    )
    verbs = parser.add_subparsers(metavar="VERB")
    run = verbs.add_parser("run", help="watch and export until SIGTERM")
    _add_configuration(run)
    run.add_argument(
        "--exporter", action="append", metavar="NAME", help="export to this only: otlp, console, prometheus, influxdb, none; repeatable"
    )
    run.add_argument("--console", action="store_true", default=None, help="print a line per exchange beside what else is exported to")
    run.add_argument("--only", metavar="WHAT", help="console: only 2xx, 3xx, 4xx, 5xx or errors")
    run.add_argument("--path", metavar="GLOB", help="console: only these paths, such as '/api/*'")
    run.add_argument("--service", metavar="NAME", help="console: only this service at either side, by name or namespace/name")
    run.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error")
    run.set_defaults(verb=_run)
    validate = verbs.add_parser("validate", help="tell every problem of a configuration")
    validate.add_argument("--config", metavar="FILE", required=True)
    validate.set_defaults(verb=_validate)
    preflight = verbs.add_parser("preflight", help="what kernel, privileges and bcc allow, and what each interface shows")
    _add_configuration(preflight)
    preflight.add_argument(
        "--seconds", type=float, default=3.0, metavar="N", help="how long to look at the interfaces (default 3; 0: not at all)"
    )
    preflight.set_defaults(verb=_preflight)
    replay = verbs.add_parser("replay", help="the same programs over a capture file; one JSON object per exchange")
    replay.add_argument("file", metavar="FILE", help="pcap or pcapng")
    _add_configuration(replay, interfaces=False)
    replay.set_defaults(verb=_replay)
    config = verbs.add_parser("config", help="show the configuration")
    _add_config_verbs(config)
    arguments = parser.parse_args(argv)
    if getattr(arguments, "verb", None) is None:
        parser.error("a verb is needed: run, validate, preflight, replay or config")
    return arguments


def _add_configuration(parser: argparse.ArgumentParser, *, interfaces: bool = True) -> None:
    parser.add_argument("--config", metavar="FILE", help="configuration file (YAML)")
    parser.add_argument("--force-architecture", action="store_true", help="run on an architecture that is not tested")
    if interfaces:
        parser.add_argument("--interface", action="append", metavar="NAME", help="watch this interface (glob allowed); repeatable")


def _add_config_verbs(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="WHAT", required=True)
    show = verbs.add_parser("print", help="effective values and where each came from, secrets masked")
    show.add_argument("--config", metavar="FILE", help="configuration file (YAML)")
    show.set_defaults(verb=_config_print)
    schema = verbs.add_parser("schema", help="JSON schema of the file")
    schema.set_defaults(verb=_config_schema)


def _load(arguments: argparse.Namespace) -> Loaded:
    from otel_ebpf_receiver.config.load import load

    return load(arguments.config, os.environ, tuple(_flags(arguments)))


def _flags(arguments: argparse.Namespace) -> list[Flag]:
    from otel_ebpf_receiver.config.load import Flag

    given: list[tuple[str, str, Any]] = [
        ("interface", "capture.taps", getattr(arguments, "interface", None)),
        ("only", "exporters.console.only", getattr(arguments, "only", None)),
        ("path", "exporters.console.path", getattr(arguments, "path", None)),
        ("service", "exporters.console.service", getattr(arguments, "service", None)),
        ("log-level", "logging.level", getattr(arguments, "log_level", None)),
        ("console", "exporters.console.enabled", "true" if getattr(arguments, "console", None) else None),
    ]
    exporters: list[str] | None = getattr(arguments, "exporter", None)
    if exporters:
        # Prometheus knows no spans, and the console shows exchanges, which spans stand for: what is not of a signal selects nothing for it.
        names = [name for one in exporters for name in one.split(",")]
        given.append(("exporter", "exporters.traces", [name for name in names if name != "prometheus"] or ["none"]))
        given.append(("exporter", "exporters.metrics", [name for name in names if name != "console"] or ["none"]))
    return [Flag(f"--{name}", path, value) for name, path, value in given if value is not None]


def _run(arguments: argparse.Namespace, stop: Stop) -> int:
    loaded = _load(arguments)
    from otel_ebpf_receiver.agent.run import run
    from otel_ebpf_receiver.status import logs

    logs.install(loaded.config.logging.level, loaded.config.logging.format)
    return run(loaded.config, stop, any_architecture=arguments.force_architecture)


def _validate(arguments: argparse.Namespace, stop: Stop) -> int:
    _load(arguments)
    print(f"{arguments.config}: no problems")
    return 0


def _preflight(arguments: argparse.Namespace, stop: Stop) -> int:
    from otel_ebpf_receiver.agent.verbs import preflight

    return preflight(_load(arguments).config, stop, any_architecture=arguments.force_architecture, seconds=arguments.seconds)


def _replay(arguments: argparse.Namespace, stop: Stop) -> int:
    from otel_ebpf_receiver.agent.verbs import replay

    return replay(arguments.file, _load(arguments).config, stop, any_architecture=arguments.force_architecture)


def _config_print(arguments: argparse.Namespace, stop: Stop) -> int:
    from otel_ebpf_receiver.config.show import print_config

    print(print_config(_load(arguments)), end="")
    return 0


def _config_schema(arguments: argparse.Namespace, stop: Stop) -> int:
    import json

    from otel_ebpf_receiver.config.show import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return 0


def _version(arguments: argparse.Namespace, stop: Stop) -> int:
    import importlib.metadata
    import platform

    from otel_ebpf_receiver.kernel.preflight import find_bcc

    bcc = find_bcc()
    rows = [
        (PROGRAM, importlib.metadata.version(PROGRAM)),
        ("python", platform.python_version()),
        ("kernel", f"{os.uname().release} {os.uname().machine}"),
        ("bcc", bcc.version or f"none: {bcc.error}"),
        *((name, importlib.metadata.version(name)) for name in ("opentelemetry-sdk", "opentelemetry-exporter-otlp", "numpy")),
    ]
    for name, value in rows:
        print(f"{name} {value}")
    return 0
