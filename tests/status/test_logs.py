"""The log's form: what every record has is where people and collectors look for it."""

from __future__ import annotations

import json
import logging

from otel_ebpf_receiver.status.logs import JsonFormatter


def test_a_json_record_begins_with_what_every_record_has() -> None:
    """Time, level, part and message come first, then the fields, of which none takes another's place."""
    record = logging.makeLogRecord(
        {"name": "otel_ebpf_receiver.export.queue", "levelname": "INFO", "msg": "stopped", "created": 1.5, "msecs": 500.0}
    )
    record.records, record.level = 3, "hidden"

    line = JsonFormatter().format(record)

    told = json.loads(line)
    assert list(told) == ["time", "level", "logger", "message", "records"]
    assert (told["time"], told["level"], told["logger"], told["records"]) == ("1970-01-01T00:00:01.500Z", "info", "export.queue", 3)
