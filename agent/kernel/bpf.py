"""Small programs that the kernel runs for us: writing them down, and handing them over.

Source: bpf(2), Documentation/bpf/standardization/instruction-set.rst, include/uapi/linux/bpf.h.
"""

import ctypes
import os
import platform
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

# Codes of instructions; X: the source is a register, else the value.
LD_ABS, LDX_W, LDX_DW = 0x20, 0x61, 0x79
MOV, MOV_X, ADD, NETWORK_ORDER = 0xB7, 0xBF, 0x07, 0xDC
JA, JEQ, JEQ_32, JNE_X, CALL, EXIT = 0x05, 0x15, 0x16, 0x5D, 0x85, 0x95
# Registers: what calls return, their arguments, what outlives calls, the frame.
R0, R1, R2, R3, R6, R7, R8, FRAME = 0, 1, 2, 3, 6, 7, 8, 10
SLOT: Final = -8
"""Where in the frame ``read`` leaves what it has read."""

GET_CURRENT_TASK: Final = 35
_PROBE_READ_KERNEL: Final = 113

_SYSTEM_CALL: Final = {"x86_64": 321, "aarch64": 280}
_PROG_LOAD: Final = 5
_SOCKET_FILTER: Final = 1
# The helpers that read the kernel's memory are for programs under this license.
_LICENSE: Final = b"GPL\0"
_ATTRIBUTE_BYTES: Final = 72
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


def load_filter(lines: Sequence[Line]) -> int:
    """Hand over a socket filter; return its descriptor. Raises OSError."""
    program = _assemble(lines)
    code = ctypes.create_string_buffer(program)
    terms = ctypes.create_string_buffer(_LICENSE)
    count = len(program) // _INSTRUCTION.size
    head = struct.pack("=IIQQ", _SOCKET_FILTER, count, ctypes.addressof(code), ctypes.addressof(terms))
    attribute = ctypes.create_string_buffer(head, _ATTRIBUTE_BYTES)
    number = _SYSTEM_CALL.get(platform.machine())
    if number is None:
        raise OSError(f"nobody has told the number of bpf(2) on {platform.machine()}")
    descriptor = _libc.syscall(number, _PROG_LOAD, attribute, _ATTRIBUTE_BYTES)
    if descriptor < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"bpf(2): {os.strerror(error)}")
    return int(descriptor)


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
