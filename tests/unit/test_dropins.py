"""What `make install` gives to other managers of networks: it names our devices, and goes with `make uninstall`."""

import re
from configparser import ConfigParser
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from agent.config import load
from agent.core.identity import host_end_name
from agent.model import Cookie

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"
OURS = [load(None).networks[0].bridge, *(host_end_name(Cookie(number)) for number in (1, 2, 1 << 63))]
OTHERS = ["eth0", "enp3s0", "docker0", "veth1a2b3c4", "br-vethd", "virbr0", "vmnet1"]


def _sections(name: str) -> ConfigParser:
    found = ConfigParser(delimiters=("=",), strict=True)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read(CONFIG / name)
    return found


def _matches(patterns: list[str], device: str) -> bool:
    return any(fnmatchcase(device, pattern) for pattern in patterns)


PATTERNS = {
    "vethd.network": _sections("vethd.network")["Match"]["Name"].split(),
    "vethd.link": _sections("vethd.link")["Match"]["OriginalName"].split(),
    "networkmanager.conf": [
        spec.removeprefix("interface-name:")
        for spec in _sections("networkmanager.conf")["keyfile"]["unmanaged-devices+"].split(";")
    ],
}


@pytest.mark.parametrize("name", PATTERNS)
def test_our_devices_are_named_and_no_others(name: str) -> None:
    assert [device for device in OURS if not _matches(PATTERNS[name], device)] == []
    assert [device for device in OTHERS if _matches(PATTERNS[name], device)] == []


def test_they_say_what_they_are_for() -> None:
    assert _sections("vethd.network")["Link"]["Unmanaged"] == "yes"
    assert _sections("vethd.link")["Link"]["MACAddressPolicy"] == "none"


def test_what_is_installed_is_uninstalled() -> None:
    recipes = (ROOT / "Makefile").read_text().partition("\ninstall:")[2]
    install, _, uninstall = recipes.partition("\nuninstall:")
    put = set(re.findall(r"install -D \S+ \S+ config/\S+ (/etc/\S+?);?(?:\s|$)", install))
    removed = re.sub(r"(\S+)\{(\w+),(\w+)\}", r"\1\2 \1\3", uninstall).split()
    assert len(put) == 5
    assert put - set(removed) == {"/etc/vethd/vethd.toml"}, "the config is kept"
