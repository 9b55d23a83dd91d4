"""The exit codes of ``vethd``, and how it says why."""

import sys

from agent.cli.render import harmless
from agent.errors import VethdError

DONE = 0
FAILED = 1
BAD_USAGE = 2  # a wrong command line or a wrong configuration
LEFT_ALONE = 3
AGENT_NOT_RUNNING = 4
# As a shell has them, POSIX.1-2017, 2.8.2: the exit codes of `vethd exec` and `vethd new` are otherwise the program's.
CANNOT_RUN = 126
NO_SUCH_PROGRAM = 127
SIGNALLED = 128  # and the signal's number


class Failure(VethdError):
    """An end with an exit code of its own; ``str()`` is one user-ready line."""

    def __init__(self, message: str, code: int) -> None:
        self.code = code
        super().__init__(message)


def tell(error: VethdError, code: int = FAILED) -> int:
    """Say an error in one line on standard error; the exit code, its own if it has one."""
    print(f"vethd: {harmless(str(error))}", file=sys.stderr, flush=True)
    return error.code if isinstance(error, Failure) else code
