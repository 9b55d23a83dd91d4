"""The metrics that there are per namespace: traffic, connections, identity."""

from collections.abc import Iterator
from operator import itemgetter
from typing import Final

from agent.core.identity import host_end_name, printable
from agent.export.exposition import Family, label_text
from agent.export.views import attached
from agent.model import Attachment, Cookie, Traffic
from agent.reconciler.world import World

_TRAFFIC: Final = {
    "receive_bytes": "rx_bytes",
    "receive_packets": "rx_packets",
    "receive_errs": "rx_errors",
    "receive_drop": "rx_dropped",
    "transmit_bytes": "tx_bytes",
    "transmit_packets": "tx_packets",
    "transmit_errs": "tx_errors",
    "transmit_drop": "tx_dropped",
}
_WORDS: Final = {"bytes": "Bytes", "packets": "Packets", "errs": "Errors", "drop": "Dropped packets"}
_Networked = list[tuple[Cookie, str, Attachment]]


def namespace_families(world: World) -> Iterator[Family]:
    """Yield all families that have a ``netns`` label."""
    networked: _Networked = [
        (record.attachment.cookie, printable(record.name), record.attachment)
        for record in attached(world)
        if record.attachment is not None
    ]
    yield from _traffic(world, networked)
    yield from _connections(world, networked)
    yield _identity(networked)


def _traffic(world: World, networked: _Networked) -> Iterator[Family]:
    names = ("netns", "network", "device")
    carried = [
        (label_text(names, (name, attachment.network.name, host_end_name(cookie))), traffic)
        for cookie, name, attachment in networked
        if (traffic := world.ledger.carried(cookie)) is not None
    ]
    for metric, field in _TRAFFIC.items():
        direction, _, kind = metric.partition("_")
        value = itemgetter(Traffic._fields.index(field))
        yield Family(
            f"vethd_network_{metric}",
            f"{_WORDS[kind]} in direction {direction}, as the namespace sees it.",
            "counter",
            [(labels, value(traffic)) for labels, traffic in carried],
        )


def _connections(world: World, networked: _Networked) -> Iterator[Family]:
    entries: list[tuple[str, int]] = []
    counted: list[tuple[str, int]] = []
    for cookie, name, attachment in networked:
        network = attachment.network.name
        for (protocol, state), count in world.connections.entries(cookie).items():
            entries.append(
                (label_text(("netns", "network", "protocol", "state"), (name, network, protocol, state)), count)
            )
        for direction, count in zip(("opened", "accepted"), world.connections.counted(cookie), strict=True):
            counted.append((label_text(("netns", "network", "direction"), (name, network, direction)), count))
    yield Family(
        "vethd_conntrack_entries",
        "Entries of the host's conntrack table, with the host and beyond it.",
        "gauge",
        entries,
    )
    yield Family(
        "vethd_conntrack_connections",
        "Connections that a namespace opened to, or accepted from, the host and beyond it.",
        "counter",
        counted,
    )


def _identity(networked: _Networked) -> Family:
    names = ("netns", "network", "source", "device", "address", "address6")
    return Family(
        "vethd_netns_info",
        "What identifies a networked namespace.",
        "gauge",
        [
            (
                label_text(
                    names,
                    (
                        name,
                        attachment.network.name,
                        "named",
                        host_end_name(cookie),
                        str(attachment.lease.address),
                        str(attachment.lease.address6 or ""),
                    ),
                ),
                1,
            )
            for cookie, name, attachment in networked
        ],
    )
