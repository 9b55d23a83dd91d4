"""What the host has of vethd beyond what the namespaces that are there account for: nothing, if all is well."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.model import ROUTE_PROTOCOL
from tests.harness import observe
from tests.harness.expect import BRIDGE
from tests.harness.running import Agent

# By prefix, as every address here is of one of these: vethd's default subnets.
_OURS = ("172.27.", "fd00:7e74:1:")
_GATEWAYS = {"172.27.0.1", "fd00:7e74:1::1"}
_COUNTING = {"opened4", "opened6", "accepted4", "accepted6"}
_LISTING = {
    "guests",
    "routed",
    "members4",
    "members6",
    "streams4",
    "routed_streams4",
    "sources4",
    "sources6",
    "plain4",
    "plain6",
}
_NOBODY = {"FAILED", "INCOMPLETE", "NOARP"}
# The main one, plumber, reaper and four that delete devices, and those that asyncio makes for what blocks: as it needs
# them, and so many at most.
MOST_THREADS = 7 + min(32, (os.cpu_count() or 1) + 4)


@dataclass(frozen=True)
class Held:
    """What the agent's process holds: open files, threads, and kB of memory that are its own."""

    files: int
    threads: int
    resident: int


def held(pid: int) -> Held:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Held(len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"]), int(status["RssAnon"].split()[0]))


def remains(agent: Agent) -> list[str]:
    """One line for each thing that stands for no namespace which the agent has networked."""
    ready = [found for found in agent.namespaces().values() if found["state"] == "ready" and found["device"]]
    devices = {found["device"] for found in ready}
    addresses = {str(found[key]).partition("/")[0] for found in ready for key in ("address", "address6") if found[key]}
    leases = sum(network["leases"] for network in agent.ask("/v1/status")[1]["networks"])
    return [
        *(f"{leases} leases, {len(devices)} networked" for _ in range(leases != len(devices))),
        *(f"device {name}" for name in sorted({*observe.host_ends()} ^ devices)),
        *_elements(devices, addresses),
        *_neighbours(addresses),
        *_routes(devices, addresses),
        *(f"connection {line}" for line in observe.conntrack_list() if _strangers(line.split(), addresses)),
    ]


def _elements(devices: set[str], addresses: set[str]) -> Iterator[str]:
    sets = [item["set"] for item in observe.nft_json() if "set" in item and item["set"]["table"] == "vethd"]
    assert sets, "the table is there"
    for found in sets:
        for element in found.get("elem", []):
            words = set(_words(element))
            if found["name"] in _COUNTING | _LISTING and (
                {word for word in words if word.startswith("vh")} - devices or _strangers(words, addresses)
            ):
                yield f"element of {found['family']} {found['name']}: {element}"


def _words(element: Any) -> Iterator[str]:
    if isinstance(element, str):
        yield element
    elif isinstance(element, dict):
        for value in element.values():
            yield from _words(value)
    elif isinstance(element, list):
        for value in element:
            yield from _words(value)


def _neighbours(addresses: set[str]) -> Iterator[str]:
    for entry in observe.ip_json("neighbour", "show", "dev", BRIDGE):
        if not _NOBODY & set(entry["state"]) and _strangers([entry["dst"]], addresses):
            yield f"neighbour {entry}"
    for entry in observe.ip_json("-6", "neighbour", "show", "proxy"):
        if _strangers([entry["dst"]], addresses):
            yield f"proxy {entry}"


def _routes(devices: set[str], addresses: set[str]) -> Iterator[str]:
    for family in ("-4", "-6"):
        for route in observe.ip_json(family, "route", "show", "protocol", str(ROUTE_PROTOCOL)):
            if route["dev"] != BRIDGE and (route["dev"] not in devices or _strangers([route["dst"]], addresses)):
                yield f"route {route}"


def _strangers(words: Iterable[str], addresses: set[str]) -> set[str]:
    """The addresses of our subnets among these words, or behind a `=` in them, that nobody holds."""
    bare = {word.rpartition("=")[2] for word in words}
    return {word for word in bare if word.startswith(_OURS)} - addresses - _GATEWAYS
