"""Where the agent listens: taken before anything is done to the host, served later.

So what cannot be had is told while nothing is changed yet; and who asks on the control socket of an agent that starts
waits for his answer.
"""

import asyncio
import contextlib
import grp
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

from agent.config import Config
from agent.errors import HostError

# As many may be accepted at once, before they count.
BACKLOG: Final = 128


class Listeners:
    """The control socket and the metrics address."""

    def __init__(self, path: Path, control: socket.socket, gid: int | None) -> None:
        self.control = control
        self.gid = gid
        """The group whose members may ask on the control socket, too."""
        self._path = path
        self._public: asyncio.Server | None = None
        self._accept: Callable[[], asyncio.Protocol] = asyncio.Protocol

    @classmethod
    async def bind(cls, config: Config) -> Self:
        """Take both addresses. Raises HostError."""
        gid = _gid(config.socket_group)
        listeners = cls(config.socket, _bind_unix(config.socket, gid), gid)
        try:
            await listeners._bind_public(config.metrics_host, config.metrics_port)
        except BaseException:
            listeners.close()
            raise
        return listeners

    async def serve_public(self, accept: Callable[[], asyncio.Protocol]) -> asyncio.Server:
        """Begin to accept connections at the metrics address, each with a protocol that ``accept`` makes."""
        assert self._public is not None
        self._accept = accept
        await self._public.start_serving()
        return self._public

    def close(self) -> None:
        """Give both addresses up."""
        self.control.close()
        if self._public is not None:
            self._public.close()
        if self._path.is_socket():
            self._path.unlink(missing_ok=True)

    async def _bind_public(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._public = await loop.create_server(self._answer, host, port, backlog=BACKLOG, start_serving=False)
        except OSError as error:
            raise HostError(f"{host}:{port}: cannot listen: {error.strerror}; set metrics.listen") from error

    def _answer(self) -> asyncio.Protocol:
        return self._accept()


def _gid(group: str | None) -> int | None:
    try:
        return None if group is None else grp.getgrnam(group).gr_gid
    except KeyError:
        raise HostError(f"agent.group: no group {group!r} on this host") from None


def _bind_unix(path: Path, gid: int | None) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_socket():
            # One that a killed agent left; a second agent was refused before this.
            path.unlink()
        with _mode(0o600):
            listener.bind(str(path))
            listener.listen(BACKLOG)
        if gid is not None:
            os.chown(path, -1, gid)
            path.chmod(0o660)
    except OSError as error:
        listener.close()
        raise HostError(f"{path}: cannot listen: {error.strerror or error}; set agent.socket") from error
    return listener


@contextlib.contextmanager
def _mode(mode: int) -> Iterator[None]:
    """Have files made with at most this mode meanwhile."""
    former = os.umask(0o777 & ~mode)
    try:
        yield
    finally:
        os.umask(former)
