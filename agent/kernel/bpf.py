"""Small programs that the kernel runs for us: writing them down, and handing them over.

Source: bpf(2), Documentation/bpf/standardization/instruction-set.rst, include/uapi/linux/bpf.h.
"""

import ctypes
import os
import platform
import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from agent.kernel.btf import Types

# Codes of instructions; X: the source is a register, else the value.
LD_ABS, LDX_W, LDX_DW, STX_W = 0x20, 0x61, 0x79, 0x63
MOV, MOV_X, ADD, NETWORK_ORDER = 0xB7, 0xBF, 0x07, 0xDC
JA, JEQ, JEQ_32, JNE_X, CALL, EXIT = 0x05, 0x15, 0x16, 0x5D, 0x85, 0x95
_LD_DOUBLE: Final = 0x18
_MAP_DESCRIPTOR: Final = 1
# Registers: what calls return, their arguments, what outlives calls, the frame.
R0, R1, R2, R3, R4, R6, R7, R8, FRAME = 0, 1, 2, 3, 4, 6, 7, 8, 10
SLOT: Final = -8
"""Where in the frame ``read`` leaves what it has read."""

GET_CURRENT_TASK: Final = 35
_PROBE_READ_KERNEL: Final = 113
RINGBUF_OUTPUT: Final = 130

_SYSTEM_CALL: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_MAP_CREATE, _PROG_LOAD, _RAW_TRACEPOINT_OPEN = 0, 5, 17
_RINGBUF: Final = 27
_SOCKET_FILTER, _TRACING = 1, 26
_TRACE_FEXIT: Final = 25
# The helpers that read the kernel's memory are for programs under this license.
_LICENSE: Final = b"GPL\0"
_ATTRIBUTE_BYTES: Final = 128
_EXPECTED_ATTACH_TYPE, _ATTACH_BTF_ID = 68, 108
_INSTRUCTION: Final = struct.Struct("=BBhi")
_IS_LITTLE: Final = struct.pack("=H", 1)[0] == 1

_libc = ctypes.CDLL(None, use_errno=True)


class Line(NamedTuple):
    """One instruction; ``to`` is the label of the line that it jumps to."""

    code: int
    into: int = 0
    source: int = 0
    offset: int = 0
    value: int = 0
    to: str = ""
    label: str = ""


def read(size: int, base: int, offset: int) -> list[Line]:
    """Read from the structure that register ``base`` points to into the frame's slot.

    Zeros are read where there is nothing: whoever follows pointers needs to test none of them.
    """
    return [
        Line(MOV_X, R3, base),
        Line(ADD, R3, value=offset),
        Line(MOV, R2, value=size),
        Line(MOV_X, R1, FRAME),
        Line(ADD, R1, value=SLOT),
        Line(CALL, value=_PROBE_READ_KERNEL),
    ]


def drop_in_netns(types: Types, task: int, inodes: Iterable[int]) -> list[Line]:
    """Jump to ``drop`` with a task, in a register, that is in one of these network namespaces.

    0 stands for what cannot be read, and for a task that has left all namespaces to end.
    See struct nsproxy in include/linux/nsproxy.h, struct net in include/net/net_namespace.h.
    """
    return [
        *read(8, task, types.offset("task_struct", "nsproxy")),
        Line(LDX_DW, task, FRAME, SLOT),
        *read(8, task, types.offset("nsproxy", "net_ns")),
        Line(LDX_DW, task, FRAME, SLOT),
        *read(4, task, types.offset("net", "ns", "ns_common", "inum")),
        Line(LDX_W, R0, FRAME, SLOT),
        *(Line(JEQ_32, R0, value=inode, to="drop") for inode in inodes),
    ]


def map_into(register: int, descriptor: int) -> list[Line]:
    """Have a register point to a map."""
    return [Line(_LD_DOUBLE, register, _MAP_DESCRIPTOR, value=descriptor), Line(0)]


def load_filter(lines: Sequence[Line]) -> int:
    """Hand over a socket filter; return its descriptor. Raises OSError."""
    return _load(lines, _SOCKET_FILTER)


def run_after(function: int, lines: Sequence[Line]) -> int:
    """Have a program run whenever a function of the kernel (its id among the types) has returned.

    It does until the returned descriptor is closed. Raises OSError.
    """
    program = _load(lines, _TRACING, _TRACE_FEXIT, function)
    try:
        return _call(_RAW_TRACEPOINT_OPEN, struct.pack("=QI", 0, program))
    finally:
        os.close(program)


def make_ring(size: int) -> int:
    """Make a ring buffer of so many bytes, a power of two; return its descriptor. Raises OSError."""
    return _call(_MAP_CREATE, struct.pack("=IIII", _RINGBUF, 0, 0, size))


def _load(lines: Sequence[Line], kind: int, attach_type: int = 0, function: int = 0) -> int:
    program = _assemble(lines)
    code = ctypes.create_string_buffer(program)
    terms = ctypes.create_string_buffer(_LICENSE)
    count = len(program) // _INSTRUCTION.size
    attribute = bytearray(_ATTRIBUTE_BYTES)
    struct.pack_into("=IIQQ", attribute, 0, kind, count, ctypes.addressof(code), ctypes.addressof(terms))
    struct.pack_into("=I", attribute, _EXPECTED_ATTACH_TYPE, attach_type)
    struct.pack_into("=I", attribute, _ATTACH_BTF_ID, function)
    return _call(_PROG_LOAD, bytes(attribute))


def _assemble(lines: Sequence[Line]) -> bytes:
    places = {line.label: place for place, line in enumerate(lines) if line.label}
    program = b""
    for place, line in enumerate(lines):
        offset = places[line.to] - place - 1 if line.to else line.offset
        # Bit fields stand the other way round where the highest byte comes first.
        registers = line.into | line.source << 4 if _IS_LITTLE else line.source | line.into << 4
        value = line.value if line.value < 1 << 31 else line.value - (1 << 32)
        program += _INSTRUCTION.pack(line.code, registers, offset, value)
    return program


def _call(command: int, attribute: bytes) -> int:
    number = _SYSTEM_CALL.get(platform.machine())
    if number is None:
        raise OSError(f"nobody has told the number of bpf(2) on {platform.machine()}")
    buffer = ctypes.create_string_buffer(attribute.ljust(_ATTRIBUTE_BYTES, b"\0"), _ATTRIBUTE_BYTES)
    descriptor = _libc.syscall(number, command, buffer, _ATTRIBUTE_BYTES)
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"bpf(2): {os.strerror(code)}")
    return int(descriptor)
