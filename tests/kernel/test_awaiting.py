"""Waiting for the kernel by its events: not a moment longer than it takes, and not for ever."""

import contextlib
import errno
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from agent.demo.isolation import inside
from agent.demo.private_host import PrivateHost
from agent.errors import KernelError
from agent.kernel.awaiting import NotYet, await_carrier, await_local_address
from agent.kernel.netlink import Netlink
from agent.kernel.reading import read_link
from agent.model import Link
from tests.harness import netns, observe
from tests.kernel.ground import sh

ADDRESS6 = bytes.fromhex("fd00000000000000000000000000000a")


@pytest.fixture
def netlink(private_host: PrivateHost) -> Iterator[Netlink]:
    """A socket of the host, where a veth pair stands whose other end is in the namespace `far`."""
    netns.add_many(["far"])
    sh("ip link add near type veth peer name eth0 netns far")
    with Netlink() as opened:
        yield opened


def ask(netlink: Netlink, seen: list[Link] | None = None) -> Callable[[], Link]:
    def look() -> Link:
        link = read_link(netlink, "near")
        assert link is not None
        if seen is not None:
            seen.append(link)
        return link

    return look


@contextlib.contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Do something in a thread that starts when the block does; it is in the same private host."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def raise_far() -> None:
    sh("ip link set eth0 up", "far")


def test_a_carrier_that_is_there_is_not_waited_for(netlink: Netlink) -> None:
    sh("ip link set near up")
    raise_far()
    seen: list[Link] = []
    link = await_carrier(ask(netlink, seen), _never)
    assert link.carrier
    assert len(seen) == 1, "the first question is the answer"


def _never() -> Netlink:
    raise AssertionError("no event has to be awaited")


def test_a_carrier_that_comes_later_is_heard_of(netlink: Netlink) -> None:
    sh("ip link set near up")
    begin = time.monotonic()
    listening = threading.Event()

    def open_socket() -> Netlink:
        listening.set()
        return Netlink()

    def later() -> None:
        assert listening.wait(5)
        raise_far()

    with meanwhile(later):
        link = await_carrier(ask(netlink), open_socket)
    assert link.carrier
    assert time.monotonic() - begin < 0.9, "by the event, not by the deadline"


def test_between_question_and_subscription_nothing_is_missed(netlink: Netlink) -> None:
    sh("ip link set near up")

    def open_socket() -> Netlink:
        # The carrier comes after the first question and before the subscription.
        raise_far()
        return Netlink()

    assert await_carrier(ask(netlink), open_socket).carrier


def test_nobody_waits_long_for_a_carrier(netlink: Netlink) -> None:
    sh("ip link set near up")
    begin = time.monotonic()
    with pytest.raises(NotYet, match=r"wait for a carrier: the kernel said ETIMEDOUT \(it is not done yet\)"):
        await_carrier(ask(netlink), Netlink)
    assert 0.2 < time.monotonic() - begin < 1


def test_a_device_that_is_down_is_an_error_at_once(netlink: Netlink) -> None:
    with pytest.raises(KernelError, match=r"wait for the carrier of near: .*the device is down") as caught:
        await_carrier(ask(netlink), _never)
    assert caught.value.code == errno.ENETDOWN


def test_a_device_that_is_set_down_meanwhile_is_an_error_at_once(netlink: Netlink) -> None:
    sh("ip link set near up")
    begin = time.monotonic()

    def open_socket() -> Netlink:
        sh("ip link set near down")
        return Netlink()

    with pytest.raises(KernelError) as caught:
        await_carrier(ask(netlink), open_socket)
    assert caught.value.code == errno.ENETDOWN
    assert time.monotonic() - begin < 0.9


def test_a_storm_of_other_events_does_not_end_the_wait(netlink: Netlink) -> None:
    sh("ip link set near up")
    listening = threading.Event()

    def open_socket() -> Netlink:
        listening.set()
        return Netlink()

    def storm() -> None:
        assert listening.wait(5)
        for number in range(30):
            observe.run("ip", "link", "set", "up0", "alias", f"storm {number}")
        raise_far()

    with meanwhile(storm):
        assert await_carrier(ask(netlink), open_socket).carrier


def test_an_ipv6_address_is_waited_for_until_packets_are_delivered(netlink: Netlink) -> None:
    raise_far()
    with inside("far"):
        there = Netlink()
    with there:
        listening = threading.Event()

        def open_socket() -> Netlink:
            listening.set()
            with inside("far"):
                return Netlink()

        def later() -> None:
            assert listening.wait(5)
            sh("ip address add fd00::a/64 dev eth0 nodad", "far")

        begin = time.monotonic()
        with meanwhile(later):
            await_local_address(there, ADDRESS6, open_socket)
        assert time.monotonic() - begin < 0.9
        await_local_address(there, ADDRESS6, _never)


def test_an_ipv6_address_that_never_comes_is_an_error(netlink: Netlink) -> None:
    with pytest.raises(KernelError, match="wait for the IPv6 address: the kernel said ETIMEDOUT"):
        await_local_address(netlink, ADDRESS6, Netlink)
