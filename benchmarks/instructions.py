"""Count the instructions that a process executes, by perf_event_open(2). The load of the machine does not change them."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

SYSCALLS = {"x86_64": 298, "aarch64": 241}  # perf_event_open
HARDWARE, INSTRUCTIONS = 0, 1  # PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS
ATTRIBUTE_BYTES = 64  # PERF_ATTR_SIZE_VER0
INHERIT, EXCLUDE_KERNEL, EXCLUDE_HYPERVISOR = 1 << 1, 1 << 5, 1 << 6


class Counter:
    """A counter of the instructions in user space of a process, and of the children that it starts from now on.

    Raises:
        OSError: the machine does not count instructions, or this user may not read the counter.
    """

    def __init__(self, pid: int, event_type: int = HARDWARE, event: int = INSTRUCTIONS) -> None:
        flags = INHERIT | EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR
        attribute = struct.pack("=IIQQQQQ", event_type, ATTRIBUTE_BYTES, event, 0, 0, 0, flags).ljust(
            ATTRIBUTE_BYTES, b"\0"
        )
        machine = platform.machine()
        if machine not in SYSCALLS:
            raise OSError(f"perf_event_open is not known for {machine}")
        any_cpu = no_group = -1
        perf_event_open = ctypes.CDLL(None, use_errno=True).syscall
        self._file = perf_event_open(SYSCALLS[machine], attribute, pid, any_cpu, no_group, 0)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def read(self) -> int:
        return int.from_bytes(os.read(self._file, 8), "little")

    def close(self) -> None:
        os.close(self._file)
