"""``[network.NAME]``: each for itself, and all of them side by side."""

import re
from ipaddress import IPv4Network, IPv6Network
from itertools import combinations
from typing import Final

from agent.config import values
from agent.config.table import Table
from agent.model import Network

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")


def networks(top: Table) -> tuple[Network, ...]:
    """Take the networks, the default one when there is none. Raises ConfigError."""
    section = top.table("network")
    tables = section.tables() or [section.table("default")]
    found = tuple(_network(table) for table in tables)
    names = {network.name for network in found}
    for table, network in zip(tables, found, strict=True):
        for other in network.reach:
            if other not in names or other == network.name:
                raise table.error("reach", f"{other!r} is not allowed: must name other networks of this file")
    for (table, one), (_, two) in combinations(zip(tables, found, strict=True), 2):
        if one.subnet.overlaps(two.subnet):
            raise table.error(
                "subnet", f"{one.subnet} overlaps {two.subnet} of network.{two.name}; subnets must not overlap"
            )
        if one.subnet6 and two.subnet6 and one.subnet6.overlaps(two.subnet6):
            raise table.error(
                "subnet6", f"{one.subnet6} overlaps {two.subnet6} of network.{two.name}; subnets must not overlap"
            )
        if one.bridge == two.bridge:
            raise table.error("bridge", f"{one.bridge!r} is that of network.{two.name} too; each network has its own")
    return found


def _network(table: Table) -> Network:
    name = table.name.removeprefix("network.")
    if not _NAME.fullmatch(name):
        raise table.error("", "is no name for a network: must be 1 to 32 letters of ASCII, digits, - or _")
    is_default = name == "default"
    subnet = table.take(
        "subnet",
        values.subnet,
        IPv4Network("172.27.0.0/16") if is_default else None,
        "a unicast IPv4 network of /29 or larger without host bits",
    )
    if subnet is None:
        raise table.error("subnet", "is missing: must be an IPv4 network of /29 or larger")
    network = Network(
        name=name,
        subnet=subnet,
        subnet6=table.take(
            "subnet6",
            values.subnet6,
            IPv6Network("fd00:7e74:1::/64") if is_default else None,
            'a unicast, not link-local IPv6 network without host bits, as large as the IPv4 one, or ""',
        ),
        bridge=table.take(
            "bridge",
            values.bridge_name,
            "vethd0" if is_default else f"vethd-{name}"[: values.DEVICE_NAME_BYTES],
            f"{values.DEVICE_NAME_ALLOWED}, nor beginning with vh",
        ),
        bridge_ports=table.take("bridge_ports", values.bridge_ports, 1000, "0 to 1000"),
        interface=table.take("interface", values.device_name, "eth0", values.DEVICE_NAME_ALLOWED),
        nat=table.take("nat", values.boolean, True, "true or false"),
        mtu=table.take("mtu", values.mtu_or_uplinks, 0, "0 or 1280 to 65535"),
        isolate=table.take("isolate", values.boolean, False, "true or false"),
        host_access=table.take(
            "host_access", values.host_access, "all", '"all", "none" or a list of ports such as ["tcp/53"]'
        ),
        anti_spoof=table.take("anti_spoof", values.boolean, True, "true or false"),
        reach=table.take("reach", values.texts, (), "a list of network names"),
    )
    if network.subnet6 is not None and network.subnet6.num_addresses < network.subnet.num_addresses:
        raise table.error("subnet6", f"{network.subnet6} is smaller than {network.subnet}; must hold as many addresses")
    table.refuse_the_rest()
    return network
