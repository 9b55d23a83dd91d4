"""What the figures were taken on."""

import os
import platform
import subprocess
from pathlib import Path

from agent import __version__

_PACKAGES = (
    "iproute2",
    "iptables",
    "nftables",
    "libnftables1",
    "containernetworking-plugins",
    "netavark",
    "iperf3",
    "gcc",
)


def describe() -> list[str]:
    """One line for each fact."""
    return [
        f"machine: {_processor()}, {os.cpu_count()} cores, {_memory_gib()} GiB",
        f"kernel: {platform.release()}",
        f"vethd {__version__}, Python {platform.python_version()}, {_packages()}",
    ]


def load() -> str:
    """How busy the machine has been: the mean number of processes that ran or wanted to, of the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def _packages() -> str:
    command = ["dpkg-query", "--show", "--showformat", "${Package} ${Version}, ", *_PACKAGES]
    try:
        # One that is not installed makes it fail, with the others told all the same.
        told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        told = ""
    return told.removesuffix(", ") or "versions of Debian packages unknown"
