"""The machine itself, seen from outside all private hosts: the suite must leave it as it was."""

import contextlib
import json
import os
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any

from tests.harness.waiting import eventually

_MARK = "VETHD_TEST_RUN"
_OURS = ("/run/netns", "/var/run/netns", "/run/vethd", "/var/lib/vethd", "/etc/vethd", "/etc/netns")
_SYSCTLS = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/bridge/bridge-nf-call-iptables")
# What changes by itself: ages of addresses and routes that the network hands out.
_AGEING = {"valid_life_time", "preferred_life_time", "expires", "age"}
_LISTS = {
    "links": ("ip", "-json", "-details", "link"),
    "addresses": ("ip", "-json", "address"),
    "routes": ("ip", "-json", "route", "show", "table", "all"),
    "IPv6 routes": ("ip", "-json", "-6", "route", "show", "table", "all"),
    "nftables": ("nft", "-j", "list", "ruleset"),
}
_END_TIMEOUT = 10.0

Snapshot = dict[str, Any]


def mark_processes() -> None:
    """Everything started from here on can be told by its environment, however it was started."""
    os.environ[_MARK] = uuid.uuid4().hex


def snapshot() -> Snapshot:
    """Everything of the machine that a stray change could have hit."""
    seen: Snapshot = {}
    for what, command in _LISTS.items():
        # Without root nothing can be changed, and nft lists nothing.
        with contextlib.suppress(FileNotFoundError):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            seen[what] = _without_ages(json.loads(done.stdout)) if done.returncode == 0 else None
    for name in _SYSCTLS:
        with contextlib.suppress(FileNotFoundError):
            seen[name] = Path("/proc/sys", name).read_text()
    for path in _OURS:
        seen[path] = sorted(os.listdir(path)) if os.path.isdir(path) else None
    seen["mounts"] = sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    seen["temporary files"] = sorted(p.name for p in Path(tempfile.gettempdir()).iterdir() if "vethd" in p.name)
    return seen


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """One line for each thing that is not as it was."""
    return [
        f"{what}: was {before.get(what)}, is {after.get(what)}"
        for what in sorted(before.keys() | after.keys())
        if before.get(what) != after.get(what)
    ]


def await_end_of_processes() -> list[str]:
    """The command lines of marked processes that are still there after a while, but for this one."""
    with contextlib.suppress(AssertionError):
        eventually(lambda: not _marked_processes(), _END_TIMEOUT, "all processes have ended")
    return _marked_processes()


def _marked_processes() -> list[str]:
    mark = f"{_MARK}={os.environ[_MARK]}".encode()
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                    found.append(f"process {process.name}: {command.decode(errors='replace')}")
    return found


def _without_ages(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_ages(item) for key, item in value.items() if key not in _AGEING}
    if isinstance(value, list):
        return [_without_ages(item) for item in value]
    return value
