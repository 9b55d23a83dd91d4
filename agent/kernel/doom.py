"""Deleting many devices at the price of one, and knowing early that they are gone.

The kernel waits for an RCU grace period for each deletion, and just once for a whole link
group. The group is made up anew each time, so nobody else's device is in it.

It also answers late: devices that are gone, and told as gone by RTM_DELLINK, keep the caller
waiting some 20 ms more for callbacks of RCU (net/core/dev.c, netdev_run_todo). So deletions
are asked for on threads of their own, and what is told is listened to.
"""

import errno
import os
import secrets
import select
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Final

from agent.core.identity import ALIAS_PREFIX, is_ours
from agent.errors import KernelError
from agent.kernel import eventfilter, messages, wire
from agent.kernel.netlink import NETLINK_ADD_MEMBERSHIP, NETLINK_ROUTE, SOL_NETLINK, Netlink
from agent.kernel.reading import read_link
from agent.kernel.rtnetlink import IFINFO, RTM_DELLINK, RTNLGRP_LINK
from agent.kernel.wire import Request
from agent.model import Link

_WORTH_A_GROUP: Final = 2
_FIRST_GROUP: Final = 1 << 30
_GROUPS: Final = 1 << 30
# Each waits most of its time; more would keep others from the RTNL lock.
_AT_ONCE: Final = 4
_DATAGRAM_BYTES: Final = 1 << 16
_FINE: Final = {0, errno.ENODEV}

Refusals = dict[str, KernelError]
"""Which devices the kernel did not delete, by name, and why."""


class Doom:
    """Threads that delete devices of the namespace they were made in."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_AT_ONCE, "deletion")
        self._sockets: SimpleQueue[Netlink] = SimpleQueue()
        for _ in range(_AT_ONCE):
            self._sockets.put(Netlink())

    def close(self) -> None:
        """Wait until the kernel has answered everything."""
        self._threads.shutdown()
        while not self._sockets.empty():
            self._sockets.get().close()

    def begin(self, names: Sequence[str]) -> "Deletion":
        """Have those of these devices deleted that are ours; what is not there is no error."""
        deletion = Deletion(names)
        self._threads.submit(self._delete, deletion)
        return deletion

    def _delete(self, deletion: "Deletion") -> None:
        netlink = self._sockets.get()
        try:
            deletion.run(netlink)
        finally:
            self._sockets.put(netlink)


class Deletion:
    """Devices that are being deleted by one thread, and waited for by another; which closes it."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._found: Future[dict[str, Link]] = Future()
        self._answer: Future[None] = Future()
        self._refusals: Refusals = {}
        self._news: _News | None = None
        self._up: set[int] = set()
        self._there: set[int] = set()

    def run(self, netlink: Netlink) -> None:
        """Find the devices and delete them; what goes wrong is told to who waits."""
        try:
            found = self._find(netlink)
            doomed = [link for link in found.values() if is_ours(link)]
            self._up = {link.index for link in doomed}
            self._there = set(self._up)
            self._news = news = _News()
        except Exception as error:  # noqa: BLE001  who waits gets it
            self._answer.set_exception(error)
            self._found.set_exception(error)
            return
        self._found.set_result(found)
        try:
            self._delete(netlink, doomed)
        except Exception as error:  # noqa: BLE001  who waits gets it
            self._answer.set_exception(error)
        else:
            self._answer.set_result(None)
        news.wake()
        news.leave()

    def links(self) -> dict[str, Link]:
        """Return the devices as they were, by name; without those that were not there."""
        return self._found.result()

    def until_silent(self) -> Refusals:
        """Wait until nothing can come from the devices any more: they are down, and nobody else can set them up.

        All but those that are refused, which stand as they did.
        """
        self.links()
        return self._until_none(self._up)

    def until_gone(self) -> Refusals:
        """Wait until the devices are gone, and everything of the kernel's that hung on them."""
        self.links()
        return self._until_none(self._there)

    @property
    def answered(self) -> bool:
        """Whether the kernel is done with it."""
        return self._answer.done()

    def close(self) -> None:
        """Stop waiting for it."""
        if self._news is not None:
            self._news.leave()

    def _until_none(self, devices: set[int]) -> Refusals:
        while devices and not self.answered:
            self._hear()
        if devices:
            self._answer.result()
        return dict(self._refusals)

    def _hear(self) -> None:
        assert self._news is not None
        down, gone = self._news.read()
        self._up -= down | gone
        self._there -= gone

    def _find(self, netlink: Netlink) -> dict[str, Link]:
        found = {}
        for name in self._names:
            try:
                link = read_link(netlink, name)
            except KernelError as error:
                self._refusals[name] = error
            else:
                if link is not None:
                    found[name] = link
        return found

    def _delete(self, netlink: Netlink, links: Sequence[Link]) -> None:
        """Delete devices together; where that fails, each, so that one keeps no other."""
        try:
            delete_together(netlink, links)
        except KernelError as error:
            for link in links if len(links) > 1 else ():
                self._delete(netlink, [link])
            if len(links) == 1:
                self._refusals[links[0].name] = error


class _News:
    """What the kernel tells of devices that end: one thread listens, another may wake it; the last to leave closes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 2
        try:
            self._told = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_ROUTE
            )
            self._awake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError as error:
            raise KernelError("listen to devices that are deleted", error.errno or 0) from error
        eventfilter.pass_ends(self._told)
        self._told.bind((0, 0))
        self._told.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_LINK)

    def wake(self) -> None:
        """Have `read` return."""
        os.eventfd_write(self._awake, 1)

    def read(self) -> tuple[set[int], set[int]]:
        """Wait for news; return the ifindexes of all devices that went down, and of those that are gone.

        What is lost in an overrun is not told again.
        """
        # Not select(2), which knows the descriptors below 1024 alone.
        news = select.poll()
        for each in (self._told.fileno(), self._awake):
            news.register(each, select.POLLIN)
        news.poll()
        down: set[int] = set()
        gone: set[int] = set()
        while True:
            try:
                datagram = self._told.recv(_DATAGRAM_BYTES)
            except BlockingIOError:
                return down, gone
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue
            for message in wire.messages(datagram):
                (gone if message.kind == RTM_DELLINK else down).add(IFINFO.unpack_from(message.payload)[2])

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._told.close()
                os.close(self._awake)


def delete_together(netlink: Netlink, links: Sequence[Link]) -> None:
    """Delete devices of ours; what is gone already is no error. Raises KernelError.

    Interrupted, it leaves devices that are still known as ours by their aliases.
    """
    requests = [messages.delete_device(link.index) for link in links] if len(links) < _WORTH_A_GROUP else _group(links)
    for request, answer in zip(requests, netlink.exchange(requests), strict=True):
        if answer.code not in _FINE:
            raise KernelError(request.what, answer.code, answer.detail)


def _group(links: Sequence[Link]) -> list[Request]:
    group = _FIRST_GROUP + secrets.randbelow(_GROUPS)
    requests = [messages.set_group(link.name, group, link.alias or ALIAS_PREFIX) for link in links]
    return [*requests, messages.delete_group(group)]
