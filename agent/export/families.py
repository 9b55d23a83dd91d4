"""The metrics that there are per namespace: traffic, connections, identity."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from agent.core.identity import host_end_name, printable
from agent.export.exposition import Family, label_text
from agent.export.views import attached
from agent.model import Cookie, Lease, Traffic
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


class _Texts(NamedTuple):
    """A namespace's label texts, and what they were made of."""

    name: str
    lease: Lease
    traffic: str
    opened: str
    accepted: str
    identity: str


class NamespaceFamilies:
    """Makes the families that have a ``netns`` label; what a namespace is called is put in words once."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._texts: dict[Cookie, _Texts] = {}

    def collect(self) -> Iterator[Family]:
        """Yield all families, as of the world's last sample."""
        former, self._texts = self._texts, {}
        for record in attached(self._world):
            if record.attachment is not None:
                cookie, lease = record.attachment.cookie, record.attachment.lease
                texts = former.get(cookie)
                if texts is None or texts.name != record.name or (texts.lease is not lease and texts.lease != lease):
                    texts = _texts(record.name, cookie, lease)
                self._texts[cookie] = texts
        yield from self._traffic()
        yield from self._connections()
        yield Family(
            "vethd_netns_info",
            "What identifies a networked namespace.",
            "gauge",
            [(texts.identity, 1) for texts in self._texts.values()],
        )

    def _traffic(self) -> Iterator[Family]:
        carried = [
            (texts.traffic, traffic)
            for cookie, texts in self._texts.items()
            if (traffic := self._world.ledger.carried(cookie)) is not None
        ]
        for metric, field in _TRAFFIC.items():
            direction, _, kind = metric.partition("_")
            place = Traffic._fields.index(field)
            yield Family(
                f"vethd_network_{metric}",
                f"{_WORDS[kind]} in direction {direction}, as the namespace sees it.",
                "counter",
                [(labels, traffic[place]) for labels, traffic in carried],
            )

    def _connections(self) -> Iterator[Family]:
        connections = self._world.connections
        entries: list[tuple[str, int]] = []
        counted: list[tuple[str, int]] = []
        for cookie, texts in self._texts.items():
            for (protocol, state), count in connections.entries(cookie).items():
                values = (printable(texts.name), texts.lease.network, protocol, state)
                entries.append((label_text(("netns", "network", "protocol", "state"), values), count))
            opened, accepted = connections.counted(cookie)
            counted += ((texts.opened, opened), (texts.accepted, accepted))
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


def _texts(raw: str, cookie: Cookie, lease: Lease) -> _Texts:
    name, network, device = printable(raw), lease.network, host_end_name(cookie)
    directed = ("netns", "network", "direction")
    identity = ("netns", "network", "source", "device", "address", "address6")
    return _Texts(
        raw,
        lease,
        label_text(("netns", "network", "device"), (name, network, device)),
        label_text(directed, (name, network, "opened")),
        label_text(directed, (name, network, "accepted")),
        label_text(identity, (name, network, "named", device, str(lease.address), str(lease.address6 or ""))),
    )
