"""InfluxDB's line protocol, version 2: one point as one line. Pure. https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/"""

from __future__ import annotations

from collections.abc import Mapping

TIMES_MAX = 8192
Value = str | int | float | bool

# A line end would end the point, and a backslash before a separator cannot be written so that every server reads it alike.
_REPLACED = {"\n": "\\ ", "\r": "\\ ", "\\": "/"}
_MEASUREMENT = str.maketrans({",": "\\,", " ": "\\ ", **_REPLACED})
_KEY = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\=", **_REPLACED})
_TEXT = str.maketrans({'"': '\\"', "\\": "\\\\", "\n": " ", "\r": " "})


class Times:
    """Gives every point a time of its own: of those with the same measurement, tags and nanosecond a server keeps one only.

    It remembers the last TIMES_MAX points at least, twice as many at most, since those of pipelined requests may come in several requests.
    """

    def __init__(self) -> None:
        # By the hash of series and time: how many ns later to look again.
        self._new: dict[int, int] = {}
        self._old: dict[int, int] = {}

    def of_its_own(self, series: str, time_unix_ns: int) -> int:
        """The first nanosecond from `time_unix_ns` on that no other point of the series has."""
        first = at = hash((series, time_unix_ns))
        own = time_unix_ns
        while step := self._new.get(at) or self._old.get(at):
            own += step
            at = hash((series, own))
        if len(self._new) >= TIMES_MAX:
            self._new, self._old = {}, self._new
        self._new[at] = 1
        self._new[first] = own + 1 - time_unix_ns
        return own


def line(measurement: str, tags: Mapping[str, str], fields: Mapping[str, Value], time_unix_ns: int, times: Times | None = None) -> str:
    """One line without its end; empty when there is no field. Tags are sorted, empty ones left out, as the server wants them."""
    if not fields:
        return ""
    kept = "".join(f",{key.translate(_KEY)}={_tag(value)}" for key, value in sorted(tags.items()) if value)
    values = ",".join(f"{key.translate(_KEY)}={_value(value)}" for key, value in fields.items())
    series = f"{measurement.translate(_MEASUREMENT)}{kept}"
    return f"{series} {values} {times.of_its_own(series, time_unix_ns) if times else time_unix_ns}"


def _tag(value: str) -> str:
    return value.translate(_KEY)


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i"
    if isinstance(value, float):
        return repr(value)
    return f'"{value.translate(_TEXT)}"'
