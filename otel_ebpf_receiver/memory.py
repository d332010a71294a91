"""The agent's own memory: what is asked of the C library and of the kernel to keep it small. Where they do not understand, nothing happens."""

from __future__ import annotations

import contextlib
import mmap
import os
import sys

_M_ARENA_MAX = -8
"""malloc.h of the GNU C library."""
_TUNABLE, _RESTARTED = "glibc.malloc.hugetlb", "large-pages"
_LARGE_PAGES = "/sys/kernel/mm/transparent_hugepage/enabled"


def tune() -> None:
    """All threads share one arena, for each of one's own keeps what it has had: 4 MiB less over gRPC, whose threads hardly compete.

    Other thresholds of malloc (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD) were tried. Larger: half of the page faults, 0.05 us an exchange, for 8 MiB more.
    1 MiB, so that larger blocks never tear the heap: 4 MiB less, for a tenth more processor time of large batches.
    """
    with contextlib.suppress(AttributeError, OSError):
        import ctypes

        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def in_large_pages() -> None:
    """Starts the program once more, in this very process, with malloc asking for large pages (glibc 2.35, `glibc.malloc.hugetlb`).

    Nothing happens where that was done, or where the kernel gives them unasked or not at all. Spans then take up to a fifth less processor time, for
    2 MiB of RSS. Signals that must not be lost are to be blocked before: they stay so, and wait.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    with contextlib.suppress(OSError):
        if was_restarted() or _TUNABLE in tunables or not _for_who_asks():
            return
        environment = {**os.environ, "GLIBC_TUNABLES": f"{tunables}:{_TUNABLE}=1".lstrip(":")}
        # The option, and not only the variable: a program with capabilities of its own is not given that, and would start for ever.
        os.execve(sys.executable, [sys.executable, "-X", _RESTARTED, *sys.orig_argv[1:]], environment)


def was_restarted() -> bool:
    """Whether `in_large_pages` was here."""
    return _RESTARTED in sys._xoptions


def _for_who_asks() -> bool:
    with open(_LARGE_PAGES) as file:
        return "[madvise]" in file.read()


def give_back() -> None:
    """Much work leaves the C heap full of holes: gives whole free pages back to the kernel, in milliseconds."""
    with contextlib.suppress(AttributeError, OSError):
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)


def forget_start() -> None:
    """Unmaps the code that is resident, most of it of libraries that only the start has run: what is still needed comes back from the page cache.

    5 MiB of RSS less, for some hundred faults without reading. Code is never written to, so that nothing is lost (madvise(2): MADV_DONTNEED).
    """
    with contextlib.suppress(AttributeError, OSError):
        import ctypes

        advise = ctypes.CDLL(None).madvise
        advise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        with open("/proc/self/maps") as maps:
            lines = maps.readlines()
        for line in lines:
            place, rights, _, _, inode, *_ = line.split()
            if rights == "r-xp" and inode != "0":
                begin, end = (int(one, 16) for one in place.split("-"))
                advise(begin, end - begin, mmap.MADV_DONTNEED)
