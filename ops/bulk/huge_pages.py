"""Memory in pages of 2 MiB, where Linux gives these to programs that ask for them."""

from __future__ import annotations

HUGE_PAGES = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
"""A variable of the environment with which a process must begin: glibc asks then (2.35 and newer).

The models take 5% less of a core, as their tensors are larger than what the processor remembers of small pages.
"""
