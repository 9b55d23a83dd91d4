"""The blocking netlink socket: many requests in order, whole dumps, transactions, errors in the kernel's words."""

import contextlib
import errno
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from agent.core.identity import host_end_name
from agent.demo.private_host import PrivateHost
from agent.errors import KernelError
from agent.kernel import decode, messages, routing
from agent.kernel import rtnetlink as rt
from agent.kernel.elements import add_element
from agent.kernel.members import Members
from agent.kernel.netlink import NETLINK_NETFILTER, Netlink
from agent.kernel.wire import NLM_F_CREATE, NLM_F_EXCL, Request, number, text
from agent.kernel.wire import messages as split
from agent.model import Cookie
from tests.harness import netns, observe
from tests.kernel.ground import Ground, sh
from tests.unit.worlds import lease_in, network


@pytest.fixture
def netlink(private_host: PrivateHost) -> Iterator[Netlink]:
    with Netlink() as opened:
        yield opened


def names(netlink: Netlink) -> set[str]:
    return {decode.link(payload).name for payload in netlink.dump(messages.dump_links())}


def test_one_device(netlink: Netlink) -> None:
    answer = netlink.ask(messages.get_link("up0"))
    assert (answer.code, answer.detail) == (0, "")
    link = decode.link(answer.replies[0])
    by_index = netlink.ask(messages.get_link_by_index(link.index))
    assert decode.link(by_index.replies[0]).name == link.name == "up0"


@pytest.mark.parametrize("count", [1, 64, 65, 200])
def test_answers_come_in_the_order_of_the_requests_however_many(netlink: Netlink, count: int) -> None:
    requests = [messages.get_link("lo" if place % 3 else "absent") for place in range(count)]
    answers = netlink.exchange(requests)
    assert [answer.code for answer in answers] == [0 if place % 3 else errno.ENODEV for place in range(count)]
    assert all(decode.link(reply).name == "lo" for answer in answers for reply in answer.replies)
    assert [len(answer.replies) for answer in answers] == [1 if place % 3 else 0 for place in range(count)]


def test_no_request_has_no_answer(netlink: Netlink) -> None:
    assert netlink.exchange([]) == []


def test_the_kernel_goes_on_after_a_request_that_fails(netlink: Netlink) -> None:
    sh("ip link add one type bridge")
    codes = [answer.code for answer in netlink.exchange([messages.raise_link(name) for name in ("absent", "one")])]
    assert codes == [errno.ENODEV, 0]
    assert "UP" in observe.links()["one"]["flags"]


def test_errors_come_with_the_kernel_s_own_words(netlink: Netlink) -> None:
    answer = netlink.ask(messages.set_mtu("up0", 10))
    assert (answer.code, answer.detail) == (errno.EINVAL, "mtu less than device minimum")
    body = messages.delete_link("up0").body[:16] + number(rt.IFLA_MTU, 1) + text(rt.IFLA_IFNAME, "n" * 40)
    answer = netlink.ask(Request(rt.RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, "make nonsense"))
    assert answer.code
    assert answer.detail


def test_a_dump_is_whole(netlink: Netlink) -> None:
    commands = "\n".join(f"link add made{number} type bridge" for number in range(150))
    subprocess.run(["ip", "-batch", "-"], input=commands, text=True, check=True)
    assert names(netlink) == set(observe.links())
    assert len(names(netlink)) == 152


def test_a_dump_is_consistent_while_others_change_what_it_reads(netlink: Netlink) -> None:
    fixed = [f"fixed{number}" for number in range(80)]
    subprocess.run(
        ["ip", "-batch", "-"], input="\n".join(f"link add {name} type bridge" for name in fixed), text=True, check=True
    )
    end = threading.Event()

    def change() -> None:
        with Netlink() as other:
            while not end.is_set():
                other.ask(messages.create_pair("comes", b"\2\0\0\0\0\1", "goes", b"\2\0\0\0\0\2", 1500, here))
                other.ask(messages.delete_link("comes"))

    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(10):
            with contextlib.suppress(KernelError):
                assert names(netlink) >= {"lo", "up0", *fixed}
    finally:
        end.set()
        thread.join()
        os.close(here)


def test_a_dump_that_cannot_be_raises(netlink: Netlink) -> None:
    with pytest.raises(KernelError, match="list nonsense: the kernel said E") as caught:
        netlink.dump(Request(0x7FF0, 0, bytes(20), "list nonsense"))
    assert caught.value.code in {errno.EOPNOTSUPP, errno.EINVAL}
    assert str(caught.value).isprintable()


def test_a_table_of_routes_that_nobody_used_is_empty(netlink: Netlink) -> None:
    netns.add_many(["empty"])
    with netns.enter("empty"):
        inside = Netlink()
    with inside:
        assert inside.dump(routing.dump_routes(2)) == inside.dump(routing.dump_routes(10)) == []


def test_a_dump_that_ends_before_its_time_raises(netlink: Netlink) -> None:
    # The kernel tells in the last message of a dump that it could not go on.
    request = Request(rt.RTM_GETADDR, 0, rt.IFADDR.pack(0, 0, 0, 0, 4711), "list addresses of nobody")
    with pytest.raises(KernelError, match="list addresses of nobody: the kernel said ENODEV"):
        netlink.dump(request)


def test_a_large_dump_is_handed_on_as_it_comes(netlink: Netlink) -> None:
    sh("for number in $(seq 60); do ip link add made$number type bridge; done")
    datagrams = list(netlink.datagrams(messages.dump_links()))
    assert len(datagrams) > 1
    payloads = [m.payload for data in datagrams for m in split(data) if m.kind == rt.RTM_NEWLINK]
    assert {decode.link(payload).name for payload in payloads} == set(observe.links())


def test_a_large_dump_that_fails_says_so_at_once(netlink: Netlink) -> None:
    begin = time.monotonic()
    with pytest.raises(KernelError, match="list nonsense: the kernel said E"):
        list(netlink.datagrams(Request(0x7FF0, 0, bytes(20), "list nonsense")))
    netns.add_many(["empty"])
    with netns.enter("empty"):
        inside = Netlink()
    with inside, pytest.raises(KernelError, match=r"list routes: the kernel said ENOENT \(ipv4: FIB"):
        list(inside.datagrams(routing.dump_routes(2)))
    assert time.monotonic() - begin < 3


def test_after_any_error_the_socket_serves_on(netlink: Netlink) -> None:
    for _ in range(3):
        with pytest.raises(KernelError):
            netlink.dump(Request(0x7FF0, 0, bytes(20), "list nonsense"))
        assert netlink.ask(messages.get_link("absent")).code == errno.ENODEV
        assert "lo" in names(netlink)


def test_names_that_are_no_utf8_can_be_asked_for(netlink: Netlink) -> None:
    subprocess.run(["ip", "link", "add", b"\xff\xfe", "type", "bridge"], check=True)
    (odd,) = names(netlink) - {"lo", "up0"}
    assert odd == "\udcff\udcfe"
    assert netlink.ask(messages.raise_link(odd)).code == 0


def test_events_wake_who_waits_and_an_overrun_is_an_event(netlink: Netlink) -> None:
    with Netlink() as events:
        assert not events.wait(0)
        events.subscribe(1)
        sh("ip link add one type bridge")
        assert events.wait(5)
        assert not events.wait(0), "all that came is dropped"
        smallest = socket.socket(fileno=os.dup(events.fileno()))
        with smallest:
            smallest.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        for _ in range(20):
            sh("ip link set one up; ip link set one down")
        assert events.wait(0)
        assert not events.wait(0)


def test_waiting_ends_in_time(netlink: Netlink) -> None:
    begin = time.monotonic()
    assert not netlink.wait(0.05)
    assert not netlink.wait(-1)
    assert 0.04 < time.monotonic() - begin < 1


def members_of(family: str, name: str) -> list[object]:
    sets = [item["set"] for item in observe.nft_json() if "set" in item]
    (found,) = [each.get("elem", []) for each in sets if (each["family"], each["name"]) == (family, name)]
    return list(found)


def test_a_transaction_happens_whole_or_not_at_all(ground: Ground) -> None:
    with Netlink(NETLINK_NETFILTER) as netlink:
        good, bad = (host_end_name(Cookie(number)) for number in (1, 2))
        Members(netlink).admit((good, lease_in(network())))
        before = members_of("bridge", "guests")
        requests = [_guest(bad), _guest(bad, "nosuchset")]
        with pytest.raises(KernelError, match="admit to nosuchset: the kernel said ENOENT"):
            netlink.transact(requests)
        assert members_of("bridge", "guests") == before
        netlink.transact(requests[:1])
        assert len(members_of("bridge", "guests")) == 2, "the socket serves on, and the rest was right"


def _guest(name: str, set_name: str = "guests") -> Request:
    return add_element("bridge", set_name, name.encode().ljust(16, b"\0"))._replace(what=f"admit to {set_name}")


def test_a_transaction_that_is_not_allowed_is_told_at_once(private_host: PrivateHost) -> None:
    program = (
        "import time\n"
        "from agent.kernel.members import Members\n"
        "from agent.kernel.netlink import NETLINK_NETFILTER, Netlink\n"
        "from tests.unit.worlds import lease_in, network\n"
        "begin = time.monotonic()\n"
        "try: Members(Netlink(NETLINK_NETFILTER)).admit(('vh1', lease_in(network())))\n"
        "except Exception as error: print(type(error).__name__, error, time.monotonic() - begin < 2)\n"
    )
    command = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert re.match(r"KernelError change the set \w+ .*: the kernel said EPERM .* True$", done.stdout), done
