"""The signals of ``vethd new``: held while things are half made, heeded while it waits, handed on to its program."""

import contextlib
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from agent.cli.exits import FAILED, SIGNALLED, tell
from agent.errors import VethdError

ENDING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})
HANDED_ON = ENDING | {signal.SIGUSR1, signal.SIGUSR2}
# A terminal sends its signals to the program as well: one that came from the kernel is not for us to hand on.
SI_KERNEL = 0x80  # include/uapi/asm-generic/siginfo.h


class Held:
    """From here on signals wait; the process, which must have one thread, is expected to end soon."""

    def __init__(self) -> None:
        self._former = signal.pthread_sigmask(signal.SIG_BLOCK, HANDED_ON | {signal.SIGCHLD})

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Have those signals that end a program end the block: by SystemExit, 128 and the signal's number."""
        former = {number: signal.getsignal(number) for number in ENDING}
        heard = [number for number, handler in former.items() if handler != signal.SIG_IGN]
        try:
            for number in heard:
                signal.signal(number, _end)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, heard)
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
            for number in heard:
                signal.signal(number, former[number])

    def release(self) -> None:
        """Leave signals as they were found, for a program that takes this process over."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._former)

    def attend(self, become: Callable[[], NoReturn]) -> int:
        """Have a child become a program, and hand signals on to it; its exit code, as a shell tells it."""
        former = signal.getsignal(signal.SIGCHLD)
        # Ignored, it would take the exit code with it.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, former)
            self.release()
            _end_as(become)
        while True:
            heard = signal.sigwaitinfo(HANDED_ON | {signal.SIGCHLD})
            if heard.si_signo == signal.SIGCHLD:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    code = os.waitstatus_to_exitcode(status)
                    return code if code >= 0 else SIGNALLED - code
            elif heard.si_code != SI_KERNEL:
                os.kill(child, heard.si_signo)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    # Further ones come too late to disturb the tidying up.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    raise SystemExit(SIGNALLED + number)


def _end_as(become: Callable[[], NoReturn]) -> NoReturn:
    code = FAILED
    try:
        become()
    except VethdError as error:
        code = tell(error)
    except Exception:  # noqa: BLE001  (whatever it is, the child must not go on as a second parent)
        traceback.print_exc()
    finally:
        os._exit(code)
