"""Reading one namespace, and single devices."""

import errno
from collections.abc import Sequence
from typing import Final

from agent.errors import KernelError
from agent.kernel import decode, messages, routing
from agent.kernel.netlink import Answer, Netlink
from agent.kernel.wire import Request
from agent.model import Inside, Link, Neighbour, Route

_MOST_NEIGHBOURS: Final = 16


def read_link(netlink: Netlink, name: str) -> Link | None:
    """Read one device by name, None when there is none. Raises KernelError."""
    request = messages.get_link(name)
    answer = netlink.ask(request)
    if answer.code == errno.ENODEV:
        return None
    check(request, answer, {0})
    return decode.link(answer.replies[0])


def read_inside(netlink: Netlink, gateways: Sequence[tuple[int, bytes]]) -> Inside:
    """Read a namespace; of neighbour entries, those of ``gateways`` and of the gateways of its default routes.

    One that holds ``lo`` alone has nothing else that matters.
    """
    links = tuple(decode.link(payload) for payload in netlink.dump(messages.dump_links()))
    if all(link.name == "lo" for link in links):
        return Inside(links)
    told = map(decode.route, netlink.dump(routing.dump_routes()))
    routes = frozenset(route for route in told if route is not None)
    return Inside(
        links,
        frozenset(decode.address(payload) for payload in netlink.dump(routing.dump_addresses())),
        routes,
        _read_neighbours(netlink, {*gateways, *_default_gateways(routes)}),
    )


def _default_gateways(routes: frozenset[Route]) -> set[tuple[int, bytes]]:
    return {(route.device, route.gateway) for route in routes if route.gateway and not route.destination}


def _read_neighbours(netlink: Netlink, wanted: set[tuple[int, bytes]]) -> frozenset[Neighbour]:
    """Read entries one by one: a dump would go through those of all namespaces."""
    requests = [routing.get_neighbour(*each) for each in sorted(wanted)[:_MOST_NEIGHBOURS]]
    found = (decode.neighbour(reply) for answer in netlink.exchange(requests) for reply in answer.replies)
    return frozenset(neighbour for neighbour in found if neighbour is not None)


def read_rival(netlink: Netlink, inside: Inside) -> Link | None:
    """Return the host's end of the first device inside whose two ends name each other."""
    for link in inside.links:
        if link.peer_nsid is not None and link.peer:
            answer = netlink.ask(messages.get_link_by_index(link.peer))
            other = None if answer.code else decode.link(answer.replies[0])
            if other is not None and other.peer == link.index and other.peer_nsid is not None:
                return other
    return None


def check(request: Request, answer: Answer, fine: set[int]) -> None:
    """Raise KernelError for an answer that is not one of those that are fine."""
    if answer.code not in fine:
        raise KernelError(request.what, answer.code, answer.detail)
