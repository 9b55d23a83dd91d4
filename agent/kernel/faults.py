"""Faults on purpose, for tests: off unless the environment asks, and then nothing here is in anybody's way."""

import contextlib
import errno
import json
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from agent.core.steps import Step
from agent.errors import KernelError

KILL_AFTER: Final = "VETHD_FAULT_KILL_AFTER"
REFUSE: Final = "VETHD_FAULT_REFUSE"
SILENCE: Final = "SILENCE"
"""Stands for an error number: the kernel does what it is asked to, and its answer is lost."""

_HEADER: Final = struct.Struct("=IHHII")
_NLMSG_ERROR: Final = 2
_NLM_F_CAPPED: Final = 0x100
_NETLINK_NETFILTER: Final = 12
_NFNL_BATCH_BEGIN: Final = 0x10
_NFNL_BATCH_END: Final = 0x11
_RECEIVE_SIZE: Final = 1 << 16
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def on_step() -> Callable[[Step], None] | None:
    """Return what to call after every kernel step; None when no fault is asked for.

    With VETHD_FAULT_KILL_AFTER=N the process ends by SIGKILL right after its N-th step.
    """
    wanted = os.environ.get(KILL_AFTER)
    if not wanted:
        return None
    left = int(wanted)

    def count(_: Step) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return count


def socket_kind() -> type[socket.socket]:
    """Return the class of netlink sockets that ask: the standard one where no fault is asked for."""
    return _FaultySocket if os.environ.get(REFUSE) else socket.socket


def around(work: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Return ``work``, which can fail by its name where faults are asked for: what is done by libraries."""
    if not os.environ.get(REFUSE):
        return work

    def faulty(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        code = _faults.strike(work.__qualname__, b"")
        if code is not None:
            raise KernelError(work.__qualname__, _number(code))
        return work(*arguments, **named)

    return faulty


@dataclass(slots=True)
class _Fault:
    """What VETHD_FAULT_REFUSE's file asks for: ``count`` calls fail with ``code`` after ``skip`` others.

    Only those count that are named ``call`` (``netlink`` for any request by a netlink socket) and
    hold the text ``holds``, and are not of the nlmsg_type ``spares``. ``serial`` tells a fault from
    one before that was the same.
    """

    call: str
    code: str
    skip: int = 0
    count: int = 1
    holds: str = ""
    spares: int = -1
    serial: int = 0

    def strikes(self, call: str, content: bytes) -> bool:
        if call != self.call or self.holds.encode() not in content:
            return False
        if content and _HEADER.unpack_from(content)[1] == self.spares:
            return False
        self.skip -= 1
        if self.skip >= 0:
            return False
        self.count -= 1
        return self.count >= 0


class _Faults:
    """The faults that are asked for now, and how often each has struck."""

    def __init__(self) -> None:
        self._text = ""
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()

    def strike(self, call: str, content: bytes) -> str | None:
        """Return the name of the error with which a call is to fail, None when it is to go on.

        The file named by VETHD_FAULT_REFUSE holds a JSON list of faults, and is followed as it
        changes; what was struck is written beside it, a line each, into ``FILE.struck``.
        """
        path = Path(os.environ[REFUSE])
        with self._lock:
            self._follow(path)
            fault = next((each for each in self._faults if each.strikes(call, content)), None)
            if fault is None:
                return None
            with open(f"{path}.struck", "a") as struck:
                struck.write(f"{call} {fault.code}\n")
            return fault.code

    def _follow(self, path: Path) -> None:
        text = path.read_text() if path.exists() else "[]"
        if text != self._text:
            self._text, self._faults = text, [_Fault(**each) for each in json.loads(text)]


_faults: Final = _Faults()


class _Asked(NamedTuple):
    """One request: its nlmsg_type and number, and all of its bytes."""

    kind: int
    sequence: int
    raw: bytes


def _number(code: str) -> int:
    return errno.ETIMEDOUT if code == SILENCE else int(getattr(errno, code))


class _FaultySocket(socket.socket):
    """A netlink socket whose kernel says no when it is told to.

    ``send-CODE`` and ``receive-CODE`` in place of an error's name have the system call itself
    fail, the latter after the kernel has done what it was asked to.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._said: list[bytes] = []
        self._failure = 0

    def send(self, data: Any, flags: int = 0) -> int:
        """Send what is not struck; all that is said to that waits here, in its order."""
        requests = list(_requests(data))
        struck = [self._strike(request) for request in requests]
        if not any(struck):
            return super().send(data, flags)
        failures = [code.removeprefix("send-") for code in struck if code and code.startswith("send-")]
        if failures:
            raise OSError(_number(failures[0]), os.strerror(_number(failures[0])))
        if self._is_transaction(requests[0]):
            self._transact(requests, struck)
            return len(data)
        for request, code in zip(requests, struck, strict=True):
            self._answer(request, code, self._ask(request.raw) if _is_done(code) else [])
        return len(data)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Receive what waits here, then what the kernel says."""
        if self._said:
            return self._said.pop(0)
        if self._failure:
            code, self._failure = self._failure, 0
            raise OSError(code, os.strerror(code))
        return super().recv(bufsize, flags)

    def _is_transaction(self, request: _Asked) -> bool:
        # The same numbers stand for devices in rtnetlink.
        return self.proto == _NETLINK_NETFILTER and request.kind in (_NFNL_BATCH_BEGIN, _NFNL_BATCH_END)

    def _strike(self, request: _Asked) -> str | None:
        if self._is_transaction(request):
            return None
        return _faults.strike("netlink", request.raw)

    def _transact(self, requests: Sequence[_Asked], struck: Sequence[str | None]) -> None:
        """A transaction happens whole or not at all."""
        if all(map(_is_done, struck)):
            self._ask(b"".join(request.raw for request in requests))
        for request, code in zip(requests, struck, strict=True):
            if code is not None:
                self._answer(request, code, [])

    def _answer(self, request: _Asked, code: str | None, said: list[bytes]) -> None:
        if code is None:
            self._said += said
        elif code.startswith("receive-"):
            self._failure = _number(code.removeprefix("receive-"))
        elif code != SILENCE:
            self._said.append(_refusal(request, _number(code)))

    def _ask(self, data: bytes) -> list[bytes]:
        super().send(data)
        said = []
        with contextlib.suppress(BlockingIOError):
            while True:
                said.append(super().recv(_RECEIVE_SIZE, socket.MSG_DONTWAIT))
        return said


def _is_done(code: str | None) -> bool:
    """Tell whether the kernel does what it is asked to, whatever is heard of it."""
    return code is None or code == SILENCE or code.startswith("receive-")


def _requests(data: bytes) -> Iterator[_Asked]:
    offset = 0
    while offset < len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        padded = (length + 3) & ~3
        yield _Asked(kind, sequence, bytes(data[offset : offset + padded]))
        offset += padded


def _refusal(request: _Asked, code: int) -> bytes:
    """Return NLMSG_ERROR as the kernel writes it with NETLINK_CAP_ACK: the error, and the request's header."""
    body = struct.pack("=i", -code) + _HEADER.pack(_HEADER.size, request.kind, 0, request.sequence, 0)
    return _HEADER.pack(_HEADER.size + len(body), _NLMSG_ERROR, _NLM_F_CAPPED, request.sequence, 0) + body
