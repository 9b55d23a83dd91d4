"""What one namespace should have: its network's settings, and what it wishes for itself."""

from dataclasses import replace

from agent.model import Attachment, Bridge, Cookie, Lease, Network, Wish


def attachment(
    cookie: Cookie, name: str, network: Network, lease: Lease, bridge: Bridge, wish: Wish | None
) -> Attachment:
    """Return what should be, with the wish laid over the network."""
    if wish is None:
        return Attachment(cookie, name, network, lease, bridge)
    return Attachment(
        cookie,
        name,
        replace(network, interface=wish.interface or network.interface),
        lease,
        replace(bridge, mtu=wish.mtu or bridge.mtu),
        exempt=network.nat and wish.nat is False,
        extra=tuple(_routes(bridge, wish)),
    )


def wished_index(network: Network, wish: Wish | None) -> int | None:
    """Return the place in the subnet of the address that is wished for, None without such a wish."""
    if wish is None or wish.address is None or wish.address not in network.subnet:
        return None
    return int(wish.address) - int(network.subnet.network_address)


def _routes(bridge: Bridge, wish: Wish) -> list[tuple[bytes, int, bytes]]:
    found = []
    for route in wish.routes:
        destination = route.destination.network_address.packed
        own = next((each for each in bridge.gateways if len(each) == len(destination)), None)
        gateway = own if route.gateway is None else route.gateway.packed
        if gateway is not None:
            found.append((destination, route.destination.prefixlen, gateway))
    return found
