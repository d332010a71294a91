"""The tables of docs/kernels.md from what `scripts/kernels` printed: `python -m tests.kernels.table FILE…`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_HEAD = re.compile(r"^(?P<kernel>\S+), bcc (?P<bcc>[\d.]+), (?P<processor>.*); (?P<choice>.*): compiled or found in ")
_ROW = re.compile(r"^  (?P<program>\w+) +(?P<instructions>\d+) instructions +(?P<processed>\d+) processed of \d+ +(?P<ms>[\d.]+) ms$")


@dataclass(frozen=True, slots=True)
class Row:
    """One program on one kernel by one compiler."""

    kernel: str
    bcc: str
    choice: str
    program: str
    instructions: int
    processed: int
    load_ms: float


def rows(lines: Iterable[str]) -> list[Row]:
    """Every program that was verified; refused ones have no row."""
    found: list[Row] = []
    head = None
    for line in lines:
        if match := _HEAD.match(line):
            head = match
        elif head and (match := _ROW.match(line)):
            where = head["kernel"], head["bcc"], head["choice"]
            found.append(Row(*where, match["program"], int(match["instructions"]), int(match["processed"]), float(match["ms"])))
    return found


def _number(kernel: str) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", kernel)[:3])


def table(found: list[Row], choice: str, bcc: str) -> list[str]:
    """Programs down, kernels across; a cell: instructions processed and seconds, `-` where the program was refused or not looked at."""
    chosen = [row for row in found if row.choice == choice and row.bcc == bcc]
    kernels = sorted({row.kernel for row in chosen}, key=_number)
    programs = {row.program: row.instructions for row in chosen}
    cells = {(row.program, row.kernel): f"{row.processed:,}, {row.load_ms / 1000:.2f} s" for row in chosen}
    out = [
        "| program | instructions | " + " | ".join(".".join(str(word) for word in _number(kernel)[:2]) for kernel in kernels) + " |",
        "|---|---:|" + "---:|" * len(kernels),
    ]
    for program, instructions in programs.items():
        out.append(f"| `{program}` | {instructions:,} | " + " | ".join(cells.get((program, kernel), "-") for kernel in kernels) + " |")
    return out


def main(names: list[str]) -> int:
    """Prints a table for each choice of options and compiler."""
    found = rows(line for name in names for line in Path(name).read_text().splitlines())
    for choice, bcc in dict.fromkeys((row.choice, row.bcc) for row in found):
        print(f"\n{choice}, bcc {bcc}\n")
        print("\n".join(table(found, choice, bcc)))
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
