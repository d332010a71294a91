"""The agent's counters, gauges and histograms: named, described, thread safe and cheap. Who counts holds one; who reports reads `readings()`.

It must not know who reports them or in which format.
"""

from __future__ import annotations

import bisect
import enum
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

Attributes = tuple[tuple[str, str], ...]
"""Sorted pairs of name and value."""
Number = int | float
DURATION_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Upper bounds of the buckets of every histogram here, as the conventions advise them for durations; each bound belongs to its bucket."""
SERIES_MAX = 2000
"""Series of one instrument that are kept or read, as many as the SDK keeps: attributes come from a closed set, this is only a guard."""


class Kind(enum.Enum):
    """How a value moves: only up, up and down as a sum, or as a momentary reading; or that it is many values."""

    COUNTER = "counter"
    UP_DOWN = "updowncounter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Instrument:
    """A dotted name as OpenTelemetry writes it, one sentence, a UCUM unit (`s`, `By`, `{exchange}`, `1` for a ratio) or none."""

    name: str
    description: str
    unit: str = ""
    kind: Kind = Kind.COUNTER


@dataclass(frozen=True, slots=True)
class Distribution:
    """Values so far: how many in each bucket, the last of which has no bound, and their sum."""

    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)


Value = Number | Distribution
"""What a series can have: a distribution where its instrument is a histogram."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The value of one series at one moment."""

    instrument: Instrument
    attributes: Attributes
    value: Value


class Counter:
    """Counts up; about 0.1 µs a call."""

    __slots__ = ("_lock", "_value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value: Number = 0

    def add(self, amount: Number = 1) -> None:
        """Adds `amount`, which is not negative."""
        with self._lock:
            self._value += amount

    @property
    def value(self) -> Number:
        """The sum so far."""
        return self._value


class Gauge:
    """Holds the last value set."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value: Number = 0

    def set(self, value: Number) -> None:
        """Replaces the value."""
        self._value = value

    @property
    def value(self) -> Number:
        """The last value set."""
        return self._value


class Histogram:
    """Counts durations in seconds by DURATION_BOUNDS_S; its owner lets it be read by `Counters.observe`."""

    __slots__ = ("_counts", "_lock", "_sum")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = [0] * (len(DURATION_BOUNDS_S) + 1)
        self._sum = 0.0

    def record(self, seconds: float) -> None:
        """Adds one."""
        with self._lock:
            self._counts[bisect.bisect_left(DURATION_BOUNDS_S, seconds)] += 1
            self._sum += seconds

    @property
    def value(self) -> Distribution:
        """All so far."""
        with self._lock:
            return Distribution(tuple(self._counts), self._sum)


Read = Callable[[], Mapping[Attributes, Value]]


class Counters:
    """All instruments of one agent. A name has one meaning: asking for it again with another unit or kind is an error."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._instruments: dict[str, Instrument] = {}
        self._series: dict[tuple[str, Attributes], Counter | Gauge] = {}
        self._reads: list[tuple[Instrument, Read]] = []

    def counter(self, name: str, description: str, *, unit: str = "", attributes: Mapping[str, str] | None = None) -> Counter:
        """The counter of that name and those attributes, made when it does not exist yet. Raises ValueError on a conflict."""
        made = self._series_of(Instrument(name, description, unit, Kind.COUNTER), attributes, Counter)
        assert isinstance(made, Counter)
        return made

    def gauge(self, name: str, description: str, *, unit: str = "", attributes: Mapping[str, str] | None = None) -> Gauge:
        """The gauge of that name and those attributes, likewise."""
        made = self._series_of(Instrument(name, description, unit, Kind.GAUGE), attributes, Gauge)
        assert isinstance(made, Gauge)
        return made

    def observe(self, instrument: Instrument, read: Read) -> None:
        """Lets `read` give the values of `instrument` whenever somebody reads, from any thread; it is to be quick and not to raise."""
        with self._lock:
            self._declare(instrument)
            self._reads.append((instrument, read))

    def readings(self) -> list[Reading]:
        """All values now, ordered by name and attributes."""
        with self._lock:
            kept = [(self._instruments[name], attributes, each) for (name, attributes), each in self._series.items()]
            reads = list(self._reads)
        readings = [Reading(instrument, attributes, each.value) for instrument, attributes, each in kept]
        for instrument, read in reads:
            values = sorted(read().items())[:SERIES_MAX]
            readings.extend(Reading(instrument, attributes, value) for attributes, value in values)
        return sorted(readings, key=lambda reading: (reading.instrument.name, reading.attributes))

    def _series_of(
        self, instrument: Instrument, attributes: Mapping[str, str] | None, make: type[Counter] | type[Gauge]
    ) -> Counter | Gauge:
        key = (instrument.name, pairs(attributes or {}))
        with self._lock:
            self._declare(instrument)
            if key not in self._series:
                if sum(name == instrument.name for name, _ in self._series) >= SERIES_MAX:
                    raise ValueError(f"'{instrument.name}' has {SERIES_MAX} series; its attributes are not from a closed set")
                self._series[key] = make()
            return self._series[key]

    def _declare(self, instrument: Instrument) -> None:
        known = self._instruments.setdefault(instrument.name, instrument)
        if (known.unit, known.kind) != (instrument.unit, instrument.kind):
            raise ValueError(f"'{instrument.name}' is already a {known.kind.value} in '{known.unit}'")


def pairs(attributes: Mapping[str, str] | Iterable[tuple[str, str]]) -> Attributes:
    """Attributes in their one order."""
    return tuple(sorted(dict(attributes).items()))
