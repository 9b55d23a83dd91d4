"""A filter of process events that looks into the kernel: where is the process that this is about?

Most processes of a host are in the host's own network namespace, and what they do is no news.
This program, run by the kernel for each event, reads the namespace of the process, or of the
child that is being made, and keeps the event back when it is one of those to be passed over.
Where it cannot tell, the event passes. Without it, each event would cost a look at /proc.

Source: copy_process in kernel/fork.c; struct task_struct in include/linux/sched.h, nsproxy in
include/linux/nsproxy.h, net in include/net/net_namespace.h.
"""

import os
import socket
from collections.abc import Iterable
from typing import Final

from agent.kernel import bpf, cn_proc
from agent.kernel.bpf import Line
from agent.kernel.btf import Types

_SO_ATTACH_BPF: Final = 50
_DEEDS: Final = (cn_proc.EXEC, cn_proc.COMM, cn_proc.SID, cn_proc.UID, cn_proc.GID)
_TASK: Final = bpf.R7
_CHILD: Final = bpf.R8


def pass_elsewhere(listener: socket.socket, passed_over: Iterable[int]) -> None:
    """Let only events of processes pass that are in other network namespaces than these inodes.

    Raises UnknownTypeError or OSError where the kernel does not let us look.
    """
    types = Types()
    program = bpf.load_filter([*_sift(), *_find_child(types), *_verdict(types, passed_over)])
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program)
    finally:
        os.close(program)


def _sift() -> list[Line]:
    """Drop what is about threads; go on to the verdict with the process that did something."""
    return [
        Line(bpf.MOV_X, bpf.R6, bpf.R1),
        Line(bpf.LD_ABS, value=cn_proc.WHAT),
        Line(bpf.NETWORK_ORDER, bpf.R0, value=32),
        Line(bpf.JEQ, bpf.R0, value=cn_proc.NONE, to="pass"),
        Line(bpf.JEQ, bpf.R0, value=cn_proc.FORK, to="fork"),
        *(Line(bpf.JEQ, bpf.R0, value=deed, to="deed") for deed in _DEEDS),
        Line(bpf.JA, to="drop"),
        # A thread's number differs from that of its process.
        Line(bpf.LD_ABS, value=cn_proc.PID, label="deed"),
        Line(bpf.MOV_X, _TASK, bpf.R0),
        Line(bpf.LD_ABS, value=cn_proc.TGID),
        Line(bpf.JNE_X, bpf.R0, _TASK, to="drop"),
        Line(bpf.CALL, value=bpf.GET_CURRENT_TASK),
        Line(bpf.MOV_X, _TASK, bpf.R0),
        Line(bpf.JA, to="verdict"),
    ]


def _find_child(types: Types) -> list[Line]:
    """Go on with the child: the last of its parent's, unless it was made for somebody else (CLONE_PARENT)."""
    return [
        Line(bpf.LD_ABS, value=cn_proc.CHILD_PID, label="fork"),
        Line(bpf.MOV_X, _CHILD, bpf.R0),
        Line(bpf.LD_ABS, value=cn_proc.CHILD_TGID),
        Line(bpf.JNE_X, bpf.R0, _CHILD, to="drop"),
        Line(bpf.NETWORK_ORDER, _CHILD, value=32),
        Line(bpf.CALL, value=bpf.GET_CURRENT_TASK),
        Line(bpf.MOV_X, _TASK, bpf.R0),
        *bpf.read(8, _TASK, types.offset("task_struct", "children", "list_head", "prev")),
        Line(bpf.LDX_DW, _TASK, bpf.FRAME, bpf.SLOT),
        Line(bpf.ADD, _TASK, value=-types.offset("task_struct", "sibling")),
        *bpf.read(4, _TASK, types.offset("task_struct", "tgid")),
        Line(bpf.LDX_W, bpf.R0, bpf.FRAME, bpf.SLOT),
        Line(bpf.JNE_X, bpf.R0, _CHILD, to="pass"),
    ]


def _verdict(types: Types, passed_over: Iterable[int]) -> list[Line]:
    """Follow ``task->nsproxy->net_ns->ns.inum``; 0, where nothing can be read, is no namespace's."""
    first, *further = bpf.read(8, _TASK, types.offset("task_struct", "nsproxy"))
    return [
        first._replace(label="verdict"),
        *further,
        Line(bpf.LDX_DW, _TASK, bpf.FRAME, bpf.SLOT),
        *bpf.read(8, _TASK, types.offset("nsproxy", "net_ns")),
        Line(bpf.LDX_DW, _TASK, bpf.FRAME, bpf.SLOT),
        *bpf.read(4, _TASK, types.offset("net", "ns", "ns_common", "inum")),
        Line(bpf.LDX_W, bpf.R0, bpf.FRAME, bpf.SLOT),
        *(Line(bpf.JEQ_32, bpf.R0, value=inode, to="drop") for inode in passed_over),
        Line(bpf.MOV, bpf.R0, value=-1, label="pass"),
        Line(bpf.EXIT),
        Line(bpf.MOV, bpf.R0, value=0, label="drop"),
        Line(bpf.EXIT),
    ]
