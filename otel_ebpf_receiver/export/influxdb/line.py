"""InfluxDB's line protocol, version 2: one point as one line. Pure. https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/"""

from __future__ import annotations

from collections.abc import Mapping

Value = str | int | float | bool

# A line end would end the point, and a backslash before a separator cannot be written so that every server reads it alike.
_REPLACED = {"\n": "\\ ", "\r": "\\ ", "\\": "/"}
_MEASUREMENT = str.maketrans({",": "\\,", " ": "\\ ", **_REPLACED})
_KEY = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\=", **_REPLACED})
_TEXT = str.maketrans({'"': '\\"', "\\": "\\\\", "\n": " ", "\r": " "})


def line(measurement: str, tags: Mapping[str, str], fields: Mapping[str, Value], time_unix_ns: int) -> str:
    """One line without its end; empty when there is no field. Tags are sorted, empty ones left out, as the server wants them."""
    if not fields:
        return ""
    kept = "".join(f",{key.translate(_KEY)}={_tag(value)}" for key, value in sorted(tags.items()) if value)
    values = ",".join(f"{key.translate(_KEY)}={_value(value)}" for key, value in fields.items())
    return f"{measurement.translate(_MEASUREMENT)}{kept} {values} {time_unix_ns}"


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
