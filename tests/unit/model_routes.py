"""Routes and addresses as the kernel makes them by itself."""

from agent.model import Lease, Route

AF_INET, AF_INET6 = 2, 10
# What routes without a metric of their own get: fib_frontend.c, ipv6_route.h.
DEFAULT_METRIC = {AF_INET: 0, AF_INET6: 1024}
ON_LINK_METRIC = {AF_INET: 0, AF_INET6: 256}
SMALLEST_IPV6_MTU = 1280  # RFC 8200, section 5


def on_link(device: int, address: bytes, prefix: int, metric: int) -> Route:
    """The route to an address's own subnet."""
    host_bits = 8 * len(address) - prefix
    network = int.from_bytes(address) >> host_bits << host_bits
    destination = network.to_bytes(len(address)) if prefix else b""
    return Route(family_of(address), destination, prefix, b"", device, metric)


def covers(route: Route, address: bytes) -> bool:
    if route.family != family_of(address):
        return False
    host_bits = 8 * len(address) - route.prefix
    return int.from_bytes(route.destination) >> host_bits == int.from_bytes(address) >> host_bits


def addresses_of(lease: Lease) -> list[bytes]:
    return [each.packed for each in (lease.address, lease.address6) if each is not None]


def family_of(address: bytes) -> int:
    return AF_INET if len(address) == 4 else AF_INET6
