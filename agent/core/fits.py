"""Whether a device is as it should be: what an event shows is compared with this, without a look."""

from agent.core.identity import alias_of, host_end_mac, netns_mac
from agent.model import LINK_GROUP, Attachment, Link


def host_end_fits(link: Link, desired: Attachment) -> bool:
    """Tell whether a host end is what ``plan`` would leave alone."""
    return (
        link.up
        and link.master == desired.bridge.index
        and link.mtu == desired.bridge.mtu
        and link.mac == host_end_mac(desired.lease.address)
        and link.group == LINK_GROUP
        and link.alias == alias_of(desired.name)
        and link.isolated == desired.network.isolate
    )


def device_fits(link: Link, desired: Attachment) -> bool:
    """Tell whether a device inside a namespace is what ``plan`` would leave alone."""
    return link.up and link.mtu == desired.bridge.mtu and link.mac == netns_mac(desired.lease.address)
