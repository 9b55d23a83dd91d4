"""A filter of process events that looks into the kernel: where is the process that this is about?

Most processes of a host are in the host's own network namespace, and what they do is no news.
This program, run by the kernel for each event, reads the namespace of the process, or of the
child that is being made, and keeps the event back when it is one of those to be passed over.
Where it cannot tell, the event passes. Without it, each event would cost a look at /proc.

Source: Documentation/bpf/standardization/instruction-set.rst, bpf(2), bpf-helpers(7); struct
task_struct in linux/sched.h, struct nsproxy in linux/nsproxy.h, struct net in net/net_namespace.h.
"""

import ctypes
import os
import platform
import socket
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from agent.kernel import cn_proc
from agent.kernel.btf import Types

_SO_ATTACH_BPF: Final = 50
_SYSTEM_CALL: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_PROG_LOAD: Final = 5
_SOCKET_FILTER: Final = 1
# The helpers that read the kernel's memory are for programs under this license.
_LICENSE: Final = b"GPL\0"
_ATTRIBUTE_BYTES: Final = 72
_GET_CURRENT_TASK: Final = 35
_PROBE_READ_KERNEL: Final = 113

_LD_ABS, _LDX_W, _LDX_DW = 0x20, 0x61, 0x79
_MOV, _MOV_X, _ADD, _ADD_X, _NETWORK_ORDER = 0xB7, 0xBF, 0x07, 0x0F, 0xDC
_JA, _JEQ, _JEQ_32, _JNE_X, _CALL, _EXIT = 0x05, 0x15, 0x16, 0x5D, 0x85, 0x95
_INSTRUCTION: Final = struct.Struct("=BBhi")
# Registers: what calls return, their arguments, what outlives calls, the frame.
_R0, _R1, _R2, _R3, _EVENT, _TASK, _CHILD, _FRAME = 0, 1, 2, 3, 6, 7, 8, 10
_SLOT: Final = -8

_libc = ctypes.CDLL(None, use_errno=True)


class _Line(NamedTuple):
    code: int
    into: int = 0
    source: int = 0
    offset: int = 0
    value: int = 0
    to: str = ""
    label: str = ""


class _Places(NamedTuple):
    """Offsets in bytes within the structures of the running kernel."""

    nsproxy: int
    children: int
    sibling: int
    tgid: int
    net: int
    inum: int


def pass_elsewhere(listener: socket.socket, passed_over: Iterable[int]) -> None:
    """Let only events of processes pass that are in other network namespaces than these inodes.

    Raises UnknownTypeError or OSError where the kernel does not let us look.
    """
    types = Types()
    places = _Places(
        nsproxy=types.offset("task_struct", "nsproxy"),
        children=types.offset("task_struct", "children"),
        sibling=types.offset("task_struct", "sibling"),
        tgid=types.offset("task_struct", "tgid"),
        net=types.offset("nsproxy", "net_ns"),
        inum=types.offset("net", "ns", "ns_common", "inum"),
    )
    program = _load(_assemble([*_events(places), *_verdict(places, passed_over)]))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program)
    finally:
        os.close(program)


def _events(places: _Places) -> list[_Line]:
    """Have the process in question in ``_TASK``, or jump to the verdict."""
    deeds = (cn_proc.EXEC, cn_proc.COMM, cn_proc.SID, cn_proc.UID, cn_proc.GID)
    return [
        _Line(_MOV_X, _EVENT, _R1),
        _Line(_LD_ABS, value=cn_proc.WHAT),
        _Line(_NETWORK_ORDER, _R0, value=32),
        _Line(_JEQ, _R0, value=cn_proc.NONE, to="pass"),
        _Line(_JEQ, _R0, value=cn_proc.FORK, to="fork"),
        *(_Line(_JEQ, _R0, value=deed, to="deed") for deed in deeds),
        _Line(_JA, to="drop"),
        # A thread's number differs from that of its process.
        _Line(_LD_ABS, value=cn_proc.PID, label="deed"),
        _Line(_MOV_X, _TASK, _R0),
        _Line(_LD_ABS, value=cn_proc.TGID),
        _Line(_JNE_X, _R0, _TASK, to="drop"),
        _Line(_CALL, value=_GET_CURRENT_TASK),
        _Line(_MOV_X, _TASK, _R0),
        _Line(_JA, to="verdict"),
        _Line(_LD_ABS, value=cn_proc.CHILD_PID, label="fork"),
        _Line(_MOV_X, _CHILD, _R0),
        _Line(_LD_ABS, value=cn_proc.CHILD_TGID),
        _Line(_JNE_X, _R0, _CHILD, to="drop"),
        _Line(_NETWORK_ORDER, _CHILD, value=32),
        _Line(_CALL, value=_GET_CURRENT_TASK),
        _Line(_MOV_X, _TASK, _R0),
        # The child is the last of its parent's, unless it was made for somebody else (CLONE_PARENT).
        *_read(8, places.children + 8),
        _Line(_LDX_DW, _TASK, _FRAME, _SLOT),
        _Line(_ADD, _TASK, value=-places.sibling),
        *_read(4, places.tgid),
        _Line(_LDX_W, _R0, _FRAME, _SLOT),
        _Line(_JNE_X, _R0, _CHILD, to="pass"),
    ]


def _verdict(places: _Places, passed_over: Iterable[int]) -> list[_Line]:
    """Follow ``task->nsproxy->net_ns->ns.inum``; what cannot be read is 0, which is nobody's."""
    follow, *further = _read(8, places.nsproxy)
    return [
        follow._replace(label="verdict"),
        *further,
        _Line(_LDX_DW, _TASK, _FRAME, _SLOT),
        *_read(8, places.net),
        _Line(_LDX_DW, _TASK, _FRAME, _SLOT),
        *_read(4, places.inum),
        _Line(_LDX_W, _R0, _FRAME, _SLOT),
        *(_Line(_JEQ_32, _R0, value=inode, to="drop") for inode in passed_over),
        _Line(_MOV, _R0, value=-1, label="pass"),
        _Line(_EXIT),
        _Line(_MOV, _R0, value=0, label="drop"),
        _Line(_EXIT),
    ]


def _read(size: int, offset: int) -> list[_Line]:
    """Read from the structure that ``_TASK`` points to into the frame's slot; zeros where that fails."""
    return [
        _Line(_MOV_X, _R3, _TASK),
        _Line(_ADD, _R3, value=offset),
        _Line(_MOV, _R2, value=size),
        _Line(_MOV_X, _R1, _FRAME),
        _Line(_ADD, _R1, value=_SLOT),
        _Line(_CALL, value=_PROBE_READ_KERNEL),
    ]


def _assemble(lines: list[_Line]) -> bytes:
    places = {line.label: place for place, line in enumerate(lines) if line.label}
    program = b""
    for place, line in enumerate(lines):
        offset = places[line.to] - place - 1 if line.to else line.offset
        value = line.value if line.value < 1 << 31 else line.value - (1 << 32)
        program += _INSTRUCTION.pack(line.code, _registers(line.into, line.source), offset, value)
    return program


def _registers(into: int, source: int) -> int:
    # Bit fields stand the other way round where the highest byte comes first.
    little = struct.pack("=H", 1)[0] == 1
    return into | source << 4 if little else source | into << 4


def _load(program: bytes) -> int:
    """Have the kernel check and translate a program; return its descriptor. Raises OSError."""
    code = ctypes.create_string_buffer(program)
    license_ = ctypes.create_string_buffer(_LICENSE)
    count = len(program) // _INSTRUCTION.size
    head = struct.pack("=IIQQ", _SOCKET_FILTER, count, ctypes.addressof(code), ctypes.addressof(license_))
    attribute = ctypes.create_string_buffer(head.ljust(_ATTRIBUTE_BYTES, b"\0"), _ATTRIBUTE_BYTES)
    number = _SYSTEM_CALL.get(platform.machine())
    if number is None:
        raise OSError(f"bpf(2) has a number of its own on {platform.machine()}")
    descriptor = _libc.syscall(number, _PROG_LOAD, attribute, _ATTRIBUTE_BYTES)
    if descriptor < 0:
        code_ = ctypes.get_errno()
        raise OSError(code_, f"bpf(2): {os.strerror(code_)}")
    return int(descriptor)
