"""Processes that move into another network namespace, by unshare(2) or setns(2).

The process connector has no event for that. A small program, run by the kernel whenever a
task has got other namespaces, leaves the process's number in a ring buffer. Threads that move
alone are not told of: mostly they come back, as this agent's own do.

Source: switch_task_namespaces in kernel/nsproxy.c, Documentation/bpf/ringbuf.rst.
"""

import mmap
import os
import struct
from collections.abc import Iterable
from typing import Final

from agent.errors import HostError
from agent.kernel import bpf
from agent.kernel.bpf import Line
from agent.kernel.btf import Types, UnknownTypeError

_RING_BYTES: Final = 1 << 16
_PAGE: Final = mmap.PAGESIZE
_POSITION: Final = struct.Struct("=Q")
_RECORD: Final = struct.Struct("=I4xI4x")
_BEING_WRITTEN: Final = 1 << 31
_PROCESS_BYTES: Final = 4
_FUNCTION: Final = "switch_task_namespaces"
_TASK: Final = bpf.R7
_PROCESS: Final = bpf.R8
# What cannot be read is 0: such a task is ending.
_NOWHERE: Final = 0


class Moves:
    """A subscription to moves into other network namespaces than some."""

    def __init__(self, passed_over: Iterable[int]) -> None:
        """Subscribe; ``passed_over`` are inodes. Takes the initial pid namespace, as numbers are told in that.

        Raises HostError where the kernel runs no such program for us.
        """
        try:
            types = Types()
            self._ring = bpf.make_ring(_RING_BYTES)
            try:
                self._program = bpf.run_after(types.function(_FUNCTION), _program(types, self._ring, passed_over))
            except (OSError, UnknownTypeError):
                os.close(self._ring)
                raise
        except (OSError, UnknownTypeError) as error:
            raise HostError(f"the kernel does not tell of processes that change their namespaces: {error}") from error
        self._taken = mmap.mmap(self._ring, _PAGE)
        # The kernel maps the data twice, one behind the other, so that no record is cut.
        self._written = mmap.mmap(self._ring, _PAGE + 2 * _RING_BYTES, prot=mmap.PROT_READ, offset=_PAGE)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable with moves."""
        return self._ring

    def take(self) -> tuple[list[int], bool]:
        """Take the processes that moved since, without waiting; tell whether some may have been lost."""
        (taken,) = _POSITION.unpack_from(self._taken)
        (written,) = _POSITION.unpack_from(self._written)
        # The kernel does not say when the ring was full: it had no room for one more then.
        lost = written - taken > _RING_BYTES - _RECORD.size
        found = []
        while taken < written:
            length, process = _RECORD.unpack_from(self._written, _PAGE + taken % _RING_BYTES)
            if length & _BEING_WRITTEN:
                break
            found.append(process)
            taken += _RECORD.size
        _POSITION.pack_into(self._taken, 0, taken)
        return found, lost

    def close(self) -> None:
        """End the subscription."""
        self._taken.close()
        self._written.close()
        os.close(self._program)
        os.close(self._ring)


def _program(types: Types, ring: int, passed_over: Iterable[int]) -> list[Line]:
    return [
        Line(bpf.LDX_DW, _TASK, bpf.R1),
        *bpf.read(4, _TASK, types.offset("task_struct", "pid")),
        Line(bpf.LDX_W, _PROCESS, bpf.FRAME, bpf.SLOT),
        *bpf.read(4, _TASK, types.offset("task_struct", "tgid")),
        Line(bpf.LDX_W, bpf.R0, bpf.FRAME, bpf.SLOT),
        Line(bpf.JNE_X, bpf.R0, _PROCESS, to="drop"),
        *bpf.drop_in_netns(types, _TASK, (_NOWHERE, *passed_over)),
        Line(bpf.STX_W, bpf.FRAME, _PROCESS, bpf.SLOT),
        *bpf.map_into(bpf.R1, ring),
        Line(bpf.MOV_X, bpf.R2, bpf.FRAME),
        Line(bpf.ADD, bpf.R2, value=bpf.SLOT),
        Line(bpf.MOV, bpf.R3, value=_PROCESS_BYTES),
        Line(bpf.MOV, bpf.R4, value=0),
        Line(bpf.CALL, value=bpf.RINGBUF_OUTPUT),
        Line(bpf.MOV, bpf.R0, value=0, label="drop"),
        Line(bpf.EXIT),
    ]
