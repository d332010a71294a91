"""The record in C and its numpy twin are the same bytes, for every size that the options allow."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from otel_ebpf_receiver.sources.http import record

HEADER = Path(__file__).parents[2] / "bpf" / "http" / "record.h"
PROGRAM = """
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32; typedef uint64_t u64;
#include "{header}"
#define SHOW(name) printf("%s %zu %zu\\n", #name, offsetof(struct http_record, name), sizeof ((struct http_record *)0)->name);
int main(void) {{
{lines}
  printf("= %zu %d\\n", sizeof(struct http_record), HTTP_RECORD_VERSION);
  return 0;
}}
"""


def layout(folder: Path, names: list[str], target: int, slots: int) -> tuple[dict[str, tuple[int, int]], int, int]:
    """Offset and size of each field as the C compiler has them, the size of the whole, and the version."""
    source, program = folder / "layout.c", folder / "layout"
    source.write_text(PROGRAM.format(header=HEADER, lines="\n".join(f"  SHOW({name})" for name in names)))
    subprocess.run(["gcc", f"-DHTTP_TARGET={target}", f"-DHTTP_SLOTS={slots}", "-o", str(program), str(source)], check=True)
    text = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    fields = {name: (int(offset), int(size)) for name, offset, size in re.findall(r"^(\w+) (\d+) (\d+)$", text, re.MULTILINE)}
    total = re.search(r"^= (\d+) (\d+)$", text, re.MULTILINE)
    assert total is not None
    return fields, int(total[1]), int(total[2])


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing; scripts/test installs it")
@pytest.mark.parametrize("slots", [0, 1, 4])
@pytest.mark.parametrize("target", [64, 256, 264, 1024])
def test_layout(tmp_path: Path, target: int, slots: int) -> None:
    """Every field lies at the same offset with the same size, and both end together."""
    dtype = record.dtype(target, slots)
    assert dtype.names is not None
    assert dtype.fields is not None

    fields, size, version = layout(tmp_path, list(dtype.names), target, slots)

    assert fields == {name: (entry[1], entry[0].itemsize) for name, entry in dtype.fields.items()}
    assert (size, version) == (dtype.itemsize, record.VERSION)


def test_no_field_is_forgotten() -> None:
    """The header declares as many fields as the dtype names."""
    text = HEADER.read_text(encoding="utf-8")
    body = re.sub(r"//[^\n]*", "", text[text.index("struct http_record {") + 20 : text.index("\n};")])
    declared = re.findall(r"(\w+)(?:\[[^\]]*\])*\s*(?=[,;])", re.sub(r"\bu(?:8|16|32|64)\b", "", body))

    assert set(declared) == set(record.dtype(slots=1).names or ())


def test_constants_agree() -> None:
    """Codes of methods, errors, sides, directions and flags are those of the header."""
    text = HEADER.read_text(encoding="utf-8")

    def listed(prefix: str) -> list[str]:
        return re.findall(rf"\b{prefix}_(\w+)(?=[,\s}}=])", text[text.index("enum {") :])

    assert tuple(listed("HTTP_METHOD")) == ("OTHER", *record.METHODS[1:])
    assert listed("HTTP_ERROR") == [member.name for member in record.Error]
    assert listed("HTTP_SIDE") == [member.name for member in record.Side]
    assert listed("HTTP_DIRECTION") == [member.name for member in record.Direction]
    assert {name: int(value) for name, value in re.findall(r"HTTP_FLAG_(\w+) = (\d+)", text)} == {m.name: m.value for m in record.Flag}
