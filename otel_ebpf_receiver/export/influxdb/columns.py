"""What a source declares for InfluxDB: which attributes of its spans are tags and fields, and which histogram is its `red`. Data only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """A tag or field and the attributes (of span or Resource) it comes from, the first that is there. A tag is from a closed set."""

    name: str
    attributes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Columns:
    """The measurements of one source.

    `traffic` is one point per span: constants, `flow` (0: the workload was the server, 1: the client), `tags`, then those of `server_tags`
    and `client_tags` that fit its side, fields likewise, and `duration` in milliseconds. `red` is one point per interval and set of
    `resource_tags`, made of the histogram `red_metric` (in seconds): `qps`, `errrate` (%) and `duration` (mean ms).
    """

    red_metric: str
    resource_tags: tuple[Column, ...]
    constants: tuple[tuple[str, str], ...] = ()
    tags: tuple[Column, ...] = ()
    fields: tuple[Column, ...] = ()
    server_tags: tuple[Column, ...] = ()
    server_fields: tuple[Column, ...] = ()
    client_tags: tuple[Column, ...] = ()
    client_fields: tuple[Column, ...] = ()
    traffic: str = "traffic"
    red: str = "red"
