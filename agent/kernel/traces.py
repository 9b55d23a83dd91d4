"""Finding and removing everything of vethd on this host, with no state file's help."""

import errno
from typing import Final

from agent.core.hostplan import is_our_bridge, originals_in
from agent.core.identity import is_ours, leased_address
from agent.errors import KernelError
from agent.kernel import conntrack, decode, messages, routing, sysctl
from agent.kernel.doom import delete_together
from agent.kernel.host import host_links
from agent.kernel.netlink import Netlink
from agent.kernel.ruleset import Ruleset
from agent.model import Link

_IPV4_BYTES: Final = 4
_IPV6_BYTES: Final = 16
_GONE: Final = {0, errno.ENODEV}


def remove_traces() -> list[str]:
    """Remove host ends, bridges, tables, connections and changed settings; return what was removed.

    Raises KernelError. What is not there is no error, so a second call removes nothing.
    """
    with Netlink() as netlink:
        links = host_links(netlink)
        host_ends = [link for link in links if is_ours(link)]
        bridges = [link for link in links if is_our_bridge(link)]
        leased = _leased(netlink, host_ends, bridges)
        delete_together(netlink, host_ends)
        removed = [f"{len(host_ends)} veth pairs"] if host_ends else []
        removed += [_delete_bridge(netlink, bridge) for bridge in bridges]
    removed += Ruleset().remove()
    removed += [_restore(name, value) for name, value in _originals(bridges).items()]
    if leased and (forgotten := conntrack.forget(leased)):
        removed.append(f"{forgotten} connections of theirs")
    return removed


def _leased(netlink: Netlink, host_ends: list[Link], bridges: list[Link]) -> list[bytes]:
    """Return the addresses of both families that the namespaces hold.

    A host end's MAC tells the IPv4 address; the IPv6 one is as far from the bridge's.
    """
    four = [address for link in host_ends if (address := leased_address(link.mac))]
    found = [address.packed for address in four]
    told = [decode.address(payload) for payload in netlink.dump(routing.dump_addresses())]
    for bridge in bridges:
        gateways = [each.address for each in told if each.device == bridge.index]
        first = next((int.from_bytes(each) for each in gateways if len(each) == _IPV4_BYTES), None)
        for gateway6 in (each for each in gateways if len(each) == _IPV6_BYTES and first is not None):
            found += [_shifted(gateway6, int(address) - (first or 0)) for address in four]
    return found


def _shifted(address: bytes, by: int) -> bytes:
    return (int.from_bytes(address) + by).to_bytes(len(address))


def _delete_bridge(netlink: Netlink, bridge: Link) -> str:
    request = messages.delete_link(bridge.name)
    answer = netlink.ask(request)
    if answer.code not in _GONE:
        raise KernelError(request.what, answer.code, answer.detail)
    return f"bridge {bridge.name}"


def _originals(bridges: list[Link]) -> dict[str, str]:
    return {name: value for bridge in bridges for name, value in originals_in(bridge.alias).items()}


def _restore(name: str, value: str) -> str:
    sysctl.write(name, value)
    return f"{name.replace('/', '.')} set back to {value}"
