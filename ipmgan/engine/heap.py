"""How the C library's heap is to treat what training allocates."""

from __future__ import annotations

import ctypes
import functools
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""What glibc's mallopt calls them."""
KEPT, LARGE = 2**30, 2**25
"""Bytes: of free memory at the end of the heap that are kept; of a block that is no part of the heap (glibc's most)."""


@functools.cache
def keep_freed_memory() -> None:
    """Let what a training step frees stay with the process for the next step; without glibc, nothing happens.

    Otherwise the heap's end goes back to the kernel and comes anew, page by page and zeroed, at every step: 400 to
    1,400 faults a step of small networks, a tenth of its time.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(MMAP_THRESHOLD, LARGE)
        libc.mallopt(TRIM_THRESHOLD, KEPT)
