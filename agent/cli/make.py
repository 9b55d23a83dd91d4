"""``vethd new``: a named namespace, made and networked, and perhaps a program inside it."""

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from agent.cli import waiting
from agent.cli.client import Client, Json
from agent.cli.exits import BAD_USAGE, DONE, FAILED, Failure
from agent.cli.inside import become
from agent.cli.local import config_of
from agent.cli.render import printable

if TYPE_CHECKING:
    from agent.cli.signals import Held
    from agent.cli.wish import Wish
    from agent.kernel.named import Named

LONGEST_NAME = 255


def new(options: argparse.Namespace) -> int:
    """``vethd new NAME``: 0 when it is networked, else as ``vethd wait``, and then nothing of it is left.

    With a program, that one's exit code; ended by a signal, 128 and its number.
    """
    from agent.cli.signals import Held
    from agent.cli.wish import Wish

    config = config_of(options)
    name = _checked(options.name)
    wish = Wish(config.socket, name, options.network)
    client = Client(str(config.socket))
    # Asked before anything is made: without an agent nothing would come of it.
    _refuse_unknown(options.network, client.get("/v1/status"))
    signals = Held()
    made = _claim(os.fsencode(config.directories[0]), name)
    try:
        with _failing(f"{printable(options.name)}: cannot be made"):
            # Once the name is ours and before it is a namespace: so the agent finds the wish when it looks.
            wish.express()
            made.make()
        with signals.heeded():
            namespace = _networked(client, made.path, options)
        code = _use(namespace, options, signals)
    except BaseException:
        _remove(made, wish)
        raise
    if options.rm:
        _remove(made, wish)
    return code


def _checked(argument: str) -> bytes:
    name = os.fsencode(argument)
    if name in (b"", b".", b"..") or b"/" in name or len(name) > LONGEST_NAME:
        raise Failure(
            f"{printable(argument)}: is no name for a namespace: must be a file's name of at most {LONGEST_NAME} bytes",
            BAD_USAGE,
        )
    return name


def _refuse_unknown(network: str | None, status: Json) -> None:
    known = [each["name"] for each in status["networks"]]
    if network is not None and network not in known:
        raise Failure(f"--network {printable(network)}: no such network; there are: {', '.join(known)}", BAD_USAGE)


def _claim(directory: bytes, name: bytes) -> "Named":
    from agent.kernel.named import Named

    with _failing(f"{printable(os.fsdecode(name))}: cannot be made"):
        return Named(directory, name)


def _networked(client: Client, path: bytes, options: argparse.Namespace) -> Json:
    name = path.decode("utf-8", "surrogateescape")
    if options.network is None:
        return waiting.networked(client, name, options.timeout)
    return waiting.networked_by(client, name, options.network, options.timeout)


def _use(namespace: Json, options: argparse.Namespace, signals: "Held") -> int:
    if not options.program:
        print(waiting.addresses(namespace))
        return DONE
    if not options.rm:
        signals.release()
        become(options.program, namespace)
    return signals.attend(lambda: become(options.program, namespace))


def _remove(made: "Named", wish: "Wish") -> None:
    with _failing(f"{printable(os.fsdecode(made.path))}: cannot be removed"):
        # In this order: without its wish a namespace would be moved to another network first.
        made.remove()
        wish.withdraw()


@contextlib.contextmanager
def _failing(what: str) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise Failure(f"{what}: it is there already", FAILED) from error
    except OSError as error:
        hint = ": become root" if isinstance(error, PermissionError) else ""
        raise Failure(f"{what}: {error.strerror}{hint}", FAILED) from error
