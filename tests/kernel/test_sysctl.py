"""Kernel settings of a host's devices, at the same price whatever stands beside."""

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import pytest

from agent.demo.isolation import inside
from agent.demo.private_host import PrivateHost
from agent.kernel import sysctl
from agent.kernel.sysctl import Ipv6Devices
from tests.harness import netns, observe

DEVICE = "vh0"
SETTING = f"net/ipv6/conf/{DEVICE}/disable_ipv6"


def took(act: Callable[[], None]) -> float:
    def once() -> float:
        begin = time.perf_counter()
        act()
        return time.perf_counter() - begin

    return median(once() for _ in range(200))


@pytest.fixture
def device(private_host: PrivateHost) -> None:
    observe.run("ip", "link", "add", DEVICE, "type", "bridge")


@pytest.mark.usefixtures("device")
def test_a_write_does_not_go_through_the_namespaces_whose_settings_others_look_at() -> None:
    names = [f"n{number}" for number in range(300)]
    netns.add_many(names)
    for name in names:
        with inside(name):
            # As every program of Go does that listens.
            Path("/proc/sys/net/core/somaxconn").read_text()
            Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").read_text()
    with contextlib.closing(Ipv6Devices()) as devices:
        ours = partial(devices.write, DEVICE, "disable_ipv6", "1")
        by_path = partial(sysctl.write, SETTING, "1")
        # 10 times on the machine that it was written on.
        assert min(took(by_path) for _ in range(3)) > 2 * min(took(ours) for _ in range(3))


@pytest.mark.usefixtures("device")
def test_a_write_is_read_again_and_a_device_that_is_gone_is_no_error() -> None:
    with contextlib.closing(Ipv6Devices()) as devices:
        for value in ("1", "0", "1"):
            devices.write(DEVICE, "disable_ipv6", value)
            assert sysctl.read(SETTING) == value
        netns.add_netns("web")
        # It is about the host, wherever the thread is.
        with inside("web"):
            devices.write(DEVICE, "disable_ipv6", "0")
        assert sysctl.read(SETTING) == "0"
        observe.run("ip", "link", "del", DEVICE)
        devices.write(DEVICE, "disable_ipv6", "1")
        observe.run("ip", "link", "add", DEVICE, "type", "bridge")
        devices.write(DEVICE, "disable_ipv6", "1")
        assert sysctl.read(SETTING) == "1"
