"""Every way in which others have been seen to change what vethd keeps, as commands of a shell."""

import subprocess
from collections.abc import Mapping
from typing import Final

from agent.demo.isolation import refuse_initial_namespace
from tests.harness.expect import BRIDGE, DEVICE, GATEWAY4, GATEWAY6, address4, address6, host_end

ONE: Final[Mapping[str, str]] = {
    "host end deleted": "ip link del {end}",
    "host end off the bridge": "ip link set {end} nomaster",
    "host end down": "ip link set {end} down",
    "host end without alias": "ip link set {end} alias ''",
    "host end in another group": "ip link set {end} group 0",
    "host end with another MTU": "ip link set {end} mtu 1300",
    "device deleted": f"ip -n {{name}} link del {DEVICE}",
    "device down": f"ip -n {{name}} link set {DEVICE} down",
    "device with another MTU": f"ip -n {{name}} link set {DEVICE} mtu 1300",
    "device with another MAC": f"ip -n {{name}} link set {DEVICE} address 02:00:00:00:00:77",
    "loopback down": "ip -n {name} link set lo down",
    "addresses flushed": f"ip -n {{name}} address flush dev {DEVICE}",
    "IPv6 address removed": f"ip -n {{name}} address del {{six}}/64 dev {DEVICE}",
    "default route removed": "ip -n {name} route del default",
    "IPv6 default route removed": "ip -n {name} -6 route del default",
    "routes flushed": "ip -n {name} route flush table main",
    "neighbours flushed": f"ip -n {{name}} neighbour flush nud permanent dev {DEVICE}",
    "neighbour removed on the bridge": f"ip neighbour del {{four}} dev {BRIDGE}",
}
"""What concerns one namespace: its name, host end and addresses are filled in."""

HOST: Final[Mapping[str, str]] = {
    "all nftables flushed": "nft flush ruleset",
    "our table emptied": "nft flush table inet vethd",
    "our bridge table deleted": "nft delete table bridge vethd",
    "bridge down": f"ip link set {BRIDGE} down",
    "bridge with another MAC": f"ip link set {BRIDGE} address 02:00:00:00:00:88",
    "bridge with another MTU": f"ip link set {BRIDGE} mtu 1300",
    "bridge without addresses": f"ip address flush dev {BRIDGE}",
    "neighbours flushed on the bridge": f"ip neighbour flush nud permanent dev {BRIDGE}",
    "gateway removed": f"ip address flush dev {BRIDGE} to {GATEWAY4}; ip address flush dev {BRIDGE} to {GATEWAY6}",
    "forwarding off": "echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv6/conf/all/forwarding",
    "bridge deleted": f"ip link del {BRIDGE}",
}
"""What concerns all of them."""


def of_one(name: str) -> dict[str, str]:
    """The commands that damage one networked namespace."""
    known = {"name": name, "end": host_end(name)["ifname"], "four": address4(name), "six": address6(name)}
    return {what: command.format(**known) for what, command in ONE.items()}


def damage(*commands: str) -> None:
    """Do all of it, whatever fails: who comes second finds nothing more to damage."""
    refuse_initial_namespace()
    script = "\n".join(f"{{ {command}; }} 2>/dev/null || true" for command in commands)
    subprocess.run(["sh", "-c", script], check=True)
