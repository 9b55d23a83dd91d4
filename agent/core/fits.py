"""Whether a device is as it should be: what an event shows is compared with this, without a look."""

from agent.core.identity import alias_of, host_end_mac, netns_mac
from agent.model import LINK_GROUP, Attachment, Link


def host_end_fits(link: Link, desired: Attachment) -> bool:
    """Tell whether a host end is what ``plan`` would leave alone."""
    return (
        link.up
        and link.mtu == desired.bridge.mtu
        and link.mac == host_end_mac(desired.lease)
        and link.group == LINK_GROUP
        and link.alias == alias_of(desired.name)
        and (_routed_fits(link) if desired.lease.routed else _port_fits(link, desired))
    )


def _port_fits(link: Link, desired: Attachment) -> bool:
    return link.master == desired.bridge.index and link.isolated == desired.network.isolate


def _routed_fits(link: Link) -> bool:
    return link.master == 0 and link.ipv6


def device_fits(link: Link, desired: Attachment) -> bool:
    """Tell whether a device inside a namespace is what ``plan`` would leave alone."""
    return link.up and link.mtu == desired.bridge.mtu and link.mac == netns_mac(desired.lease.address)
