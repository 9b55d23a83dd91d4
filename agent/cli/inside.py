"""``vethd exec``: a program inside a namespace, once that is networked."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from agent.cli import render, waiting
from agent.cli.client import Json, api_name, client_of
from agent.cli.exits import CANNOT_RUN, NO_SUCH_PROGRAM, Failure


def execute(options: argparse.Namespace) -> NoReturn:
    """``vethd exec NAME -- CMD``: this process becomes CMD, so its exit code and signals are CMD's.

    Raises Failure: 1 and 3 as ``vethd wait``, 127 when there is no CMD, 126 when it cannot be run.
    """
    become(options.program, waiting.networked(client_of(options), api_name(options.name), options.timeout))


def become(program: Sequence[str], namespace: Json) -> NoReturn:
    """Become a program inside a namespace that the agent told of. Raises Failure, with everything as before."""
    from agent.kernel import inside

    path: bytes = namespace["path"].encode("utf-8", "surrogateescape")
    # What a process is in has no name that files in /etc/netns could bear.
    name = os.path.basename(path) if namespace["source"] == "named" else None
    place = inside.Place(path, namespace["cookie"], name)
    sys.stdout.flush()
    try:
        inside.become([os.fsencode(argument) for argument in program], place, _warn)
    except inside.CannotRun as error:
        raise Failure(str(error), CANNOT_RUN if error.found else NO_SUCH_PROGRAM) from error


def _warn(message: str) -> None:
    print(f"vethd: {render.harmless(message)}", file=sys.stderr, flush=True)
