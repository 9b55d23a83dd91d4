"""What the doctor says of the host's services that namespaces can reach, and of what the agent may."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agent.demo.private_host import PrivateHost
from agent.doctor import Finding, examine, service, services
from agent.doctor.listeners import Listener, listeners
from agent.kernel import privileges
from agent.kernel.privileges import Privileges
from agent.model import Port
from tests.harness.netns import Lines
from tests.unit.test_cli_doctor import HEALTHY
from tests.unit.worlds import network

SSH = Listener("tcp", 22, "0.0.0.0", "sshd")
SSH6 = Listener("tcp", 22, "::", "sshd")
DNS = Listener("udp", 53, "172.27.0.1", "dnsmasq")
LOCAL = Listener("tcp", 631, "127.0.0.1", "cupsd")
SIX = Listener("tcp", 80, "fd00:7e74:1::1", "nginx")
ALL = (SSH, SSH6, DNS, LOCAL, SIX)


def findings(found: tuple[Listener, ...] = ALL, metrics: str = "127.0.0.1", **network_keys: Any) -> list[Finding]:
    config = dataclasses.replace(HEALTHY.config, networks=(network(**network_keys),), metrics_host=metrics)
    facts = dataclasses.replace(HEALTHY, config=config, listeners=found)
    return [each for each in examine(facts) if each.id in {"host-services", "metrics-exposed"}]


def test_each_service_is_named_with_its_program_once() -> None:
    (told,) = findings()
    assert told.severity == "info"
    assert "3 services of this host: sshd tcp/22, dnsmasq udp/53 at 172.27.0.1, nginx tcp/80 at fd00:" in told.message
    assert 'host_access = "none"' in told.fix


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"host_access": "none"}, ()),
        ({"host_access": ()}, ()),
        ({"host_access": (Port("tcp", 53),)}, ()),
        ({"host_access": (Port("udp", 53),)}, ("dnsmasq",)),
        ({"host_access": (Port("tcp", 22), Port("tcp", 631))}, ("sshd",)),
        ({"subnet6": ""}, ("sshd", "dnsmasq")),
    ],
)
def test_only_what_the_network_may_open(keys: dict[str, Any], found: tuple[str, ...]) -> None:
    (told,) = findings(**keys)
    assert told.severity == ("info" if found else "ok")
    assert [each for each in ("sshd", "dnsmasq", "cupsd", "nginx") if f" {each} " in told.message] == list(found)


@pytest.mark.parametrize("address", ["127.0.0.53", "::1", "fe80::1", "224.0.0.251", "ff02::fb"])
def test_addresses_that_no_namespace_reaches(address: str) -> None:
    (told,) = findings((Listener("udp", 5353, address, "avahi"),))
    assert told.severity == "ok"


@pytest.mark.parametrize(
    ("listen", "access", "exposed"),
    [
        ("127.0.0.1", "all", False),
        ("localhost", "all", False),
        ("::1", "all", False),
        ("0.0.0.0", "all", True),
        ("::", "all", True),
        ("192.0.2.2", "all", True),
        ("monitoring.example", "all", True),
        ("0.0.0.0", "none", False),
        ("0.0.0.0", (Port("tcp", 9853),), True),
        ("0.0.0.0", (Port("udp", 9853),), False),
    ],
)
def test_metrics_that_namespaces_can_read_are_warned_of(listen: str, access: object, exposed: bool) -> None:
    found = [each for each in findings((), listen, host_access=access) if each.id == "metrics-exposed"]
    assert [each.severity for each in found] == ["warning"] * exposed
    assert all(each.fix for each in found)


LISTEN = """
import socket, sys
kept = []
for address, port in (("0.0.0.0", 4711), ("::", 4712), ("192.0.2.2", 4713), ("::1", 4714)):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        opened = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
        opened.bind((address, port))
        if kind == socket.SOCK_STREAM:
            opened.listen()
        kept.append(opened)
busy = socket.create_connection(("127.0.0.1", 4711))
with open("/proc/self/comm", "w") as name:
    name.write("odd\\nname\\x1b[31m")
print("up", flush=True)
sys.stdin.read()
"""


@contextmanager
def serving() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-I", "-S", "-c", LISTEN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        try:
            assert Lines(process.stdout).readline() == "up\n"
            yield process
        finally:
            process.kill()


def test_what_listens_on_the_host_is_found_with_its_program(private_host: PrivateHost) -> None:
    before = listeners()
    with serving():
        found = sorted(set(listeners()) - set(before))
    assert {each.program for each in found} == {"odd\\x0aname\\x1b[31m"}
    expected = {(4711, "0.0.0.0"), (4712, "::"), (4713, "192.0.2.2"), (4714, "::1")}
    assert {(each.protocol, each.port, each.address) for each in found} == {
        (protocol, *place) for protocol in ("tcp", "udp") for place in expected
    }


def test_who_may_not_see_the_program_still_sees_the_service(
    private_host: PrivateHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> list[str]:
        if path.endswith("/fd"):
            raise PermissionError
        return ["1"]

    with serving():
        monkeypatch.setattr(os, "listdir", refuse)
        assert Listener("tcp", 4711, "0.0.0.0", "?") in listeners()


MAY = sum(1 << number for number, name in privileges.NAMES.items() if name.startswith("CAP_NET_A"))


@pytest.mark.parametrize(
    ("may", "severity", "words"),
    [
        (Privileges(MAY, MAY, no_new=True), "ok", ["CAP_NET_ADMIN"]),
        (Privileges(MAY, MAY, no_new=False), "info", ["CAP_NET_ADMIN"]),
        (Privileges(MAY | 1 << 16, MAY, no_new=True), "info", ["needs none of capability 16"]),
    ],
)
def test_what_the_agent_may_is_told(may: Privileges, severity: str, words: list[str]) -> None:
    (told,) = service.privileges(dataclasses.replace(HEALTHY, privileges=may))
    assert told.severity == severity
    assert not [word for word in words if word not in told.message]


def test_without_an_agent_nothing_is_told_of_what_it_may() -> None:
    assert not list(service.privileges(HEALTHY))


def test_the_doctors_own_eyes_see_themselves() -> None:
    assert privileges.read(os.getpid()).effective == privileges.read().effective
    assert services.is_open(network(), SSH)
