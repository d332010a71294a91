"""The libraries of the page are what their packages carry, have their licences beside them, and come with the wheel."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from otel_ebpf_receiver.status.page.files import FOLDER

VENDOR = FOLDER / "vendor"


def test_the_sums_hold() -> None:
    """Every file but the notes is listed with its sum, and each library has a licence."""
    listed = {line.split()[1]: line.split()[0] for line in (VENDOR / "SUMS").read_text().splitlines()}
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.iterdir() if path.name not in ("SUMS", "README.md")
    }

    assert found == listed
    assert {"dagre.LICENSE.txt", "uPlot.LICENSE.txt"} <= set(found)


def test_own_files_name_no_host_and_hold_no_markup_in_strings() -> None:
    """No address of another host but XML's name space, and nothing that would make text from the wire HTML."""
    own: list[Path] = [path for path in FOLDER.iterdir() if path.is_file()]
    text = "\n".join(path.read_text() for path in own)

    assert len(own) > 8
    assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|style=", text)
