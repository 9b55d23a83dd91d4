"""What the kernel refuses, and what it never answers: an error that names it, and the socket serves on."""

import contextlib
import errno
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.core.identity import host_end_name
from agent.demo.private_host import PrivateHost
from agent.errors import KernelError
from agent.kernel import decode, faults, messages
from agent.kernel.elements import add_element
from agent.kernel.netlink import NETLINK_NETFILTER, Netlink
from agent.kernel.reaper import Reaper
from agent.model import Cookie
from tests.harness import observe
from tests.harness.refusals import Refusals
from tests.kernel.ground import Ground, remove
from tests.kernel.test_netlink import members_of
from tests.kernel.test_reaper import bridge_neighbours, left_of, removal, talk


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Refusals:
    made = Refusals(tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("agent.kernel.netlink._SOCKET", faults.socket_kind())
    return made


@pytest.fixture
def netlink(private_host: PrivateHost, refusals: Refusals) -> Iterator[Netlink]:
    with Netlink() as opened:
        yield opened


CODES = {
    "ENOBUFS": errno.ENOBUFS,
    "EPERM": errno.EPERM,
    "send-ENOMEM": errno.ENOMEM,
    "receive-ENOBUFS": errno.ENOBUFS,
    "SILENCE": errno.ETIMEDOUT,
}


@pytest.mark.parametrize("code", CODES)
def test_a_dump_is_refused_and_the_next_is_not(netlink: Netlink, refusals: Refusals, code: str) -> None:
    refusals.begin(code, count=1)
    with pytest.raises(KernelError, match="list devices: the kernel said") as caught:
        netlink.dump(messages.dump_links())
    assert caught.value.code == CODES[code]
    names = {decode.link(payload).name for payload in netlink.dump(messages.dump_links())}
    assert names == set(observe.links())


@pytest.mark.parametrize("code", ["ENOBUFS", "EPERM"])
def test_one_request_of_several_is_refused(netlink: Netlink, refusals: Refusals, code: str) -> None:
    refusals.begin(code, skip=1, count=1)
    answers = netlink.exchange([messages.get_link("lo"), messages.get_link("up0"), messages.get_link("lo")])
    assert [answer.code for answer in answers] == [0, CODES[code], 0]
    assert [len(answer.replies) for answer in answers] == [1, 0, 1]


def test_an_answer_that_never_comes_is_not_waited_for_long(netlink: Netlink, refusals: Refusals) -> None:
    refusals.begin("SILENCE", count=1)
    begin = time.monotonic()
    with pytest.raises(KernelError, match=r"set up0 up: the kernel said ETIMEDOUT \(no answer\)"):
        netlink.ask(messages.raise_link("up0"))
    assert time.monotonic() - begin < 3
    assert netlink.ask(messages.get_link("up0")).code == 0


def test_a_transaction_that_is_refused_does_nothing(ground: Ground, refusals: Refusals) -> None:
    keys = [host_end_name(Cookie(number)).encode().ljust(16, b"\0") for number in (1, 2)]
    requests = [add_element("bridge", "guests", key) for key in keys]
    with Netlink(NETLINK_NETFILTER) as netfilter:
        refusals.begin("EBUSY", skip=1, count=1)
        with pytest.raises(KernelError, match="EBUSY"):
            netfilter.transact(requests)
        assert members_of("bridge", "guests") == []
        netfilter.transact(requests)
        assert len(members_of("bridge", "guests")) == 2


def test_waiting_works_by_a_descriptor_of_any_number(private_host: PrivateHost) -> None:
    """select(2) knows those below 1024 alone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(1100):
                stack.callback(os.close, os.open("/dev/null", os.O_RDONLY))
            with Netlink() as events:
                assert events.fileno() >= 1024
                events.subscribe(1)
                observe.run("ip", "link", "set", "up0", "mtu", "1400")
                assert events.wait(5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def reaper(ground: Ground, refusals: Refusals) -> Iterator[Reaper]:
    with contextlib.closing(Reaper()) as made:
        yield made


def test_one_that_cannot_be_deleted_keeps_no_other(ground: Ground, reaper: Reaper, refusals: Refusals) -> None:
    ground.add("web", "db", "mail")
    removals = [removal(ground.desired(name)) for name in ("web", "db", "mail")]
    with refusals.during("EBUSY", holds=removals[1].host_end):
        lasts = remove(reaper, removals)
    assert [last.failure is None for last in lasts] == [True, False, True]
    assert "EBUSY" in str(lasts[1].failure)
    assert set(observe.host_ends()) == {removals[1].host_end}
    assert remove(reaper, removals[1:2])[0].failure is None
    assert observe.host_ends() == {}
    assert bridge_neighbours() == set()
    assert members_of("bridge", "guests") == []


def test_what_was_carried_is_told_although_something_is_left(
    ground: Ground, reaper: Reaper, refusals: Refusals
) -> None:
    ground.add("web")
    (wanted,) = [removal(ground.desired("web"))]
    refusals.begin("ENOMEM", holds="members4")
    (last,) = remove(reaper, [wanted])
    assert last.failure is not None
    assert last.traffic is not None
    refusals.end()
    assert remove(reaper, [wanted])[0].failure is None
    assert members_of("bridge", "members4") == []


@pytest.mark.parametrize("set_name", ["opened4", "accepted4", "opened6", "accepted6"])
def test_what_is_not_told_is_not_taken_for_nothing(
    ground: Ground, reaper: Reaper, refusals: Refusals, set_name: str
) -> None:
    ground.add("web")
    talk("web")
    desired = ground.desired("web")
    refusals.begin("SILENCE", count=1, holds=set_name)
    failed = remove(reaper, [removal(desired)])[0].failure
    refusals.end()
    if failed is not None:
        assert remove(reaper, [removal(desired)])[0].failure is None
    assert left_of(desired) == []
