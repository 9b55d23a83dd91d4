"""What each namespace receives and sends in a second, from two looks at the agent's counters."""

from collections.abc import Callable
from typing import NamedTuple

from agent.cli.client import Client, Json

HEAD = ("NAME", "NETWORK", "RECEIVES", "SENDS", "PKT IN/S", "PKT OUT/S", "CONNS", "RECEIVED", "SENT")
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
THOUSAND = 1000
UNSPLIT = 100  # from here on a decimal place is noise


class Rate(NamedTuple):
    """One namespace between two looks: bytes and packets a second as it sees them, bytes in all, connections now."""

    name: str
    network: str
    device: str
    receive: float
    transmit: float
    receive_packets: float
    transmit_packets: float
    received: int
    transmitted: int
    connections: int


# What a number is sorted by, negated: the biggest comes first.
ORDERS: dict[str, Callable[[Rate], tuple[float, str]]] = {
    "use": lambda rate: (-rate.receive - rate.transmit, rate.name),
    "receive": lambda rate: (-rate.receive, rate.name),
    "transmit": lambda rate: (-rate.transmit, rate.name),
    "packets": lambda rate: (-rate.receive_packets - rate.transmit_packets, rate.name),
    "connections": lambda rate: (-rate.connections, rate.name),
    "name": lambda rate: (0, rate.name),
    "network": lambda rate: (0, f"{rate.network}\0{rate.name}"),
}


class Looks:
    """The agent's counters now and a look before; ``seconds`` lie between the two."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._last = self._look()
        self.time = self._last[0]
        self.seconds = 0.0

    def rates(self) -> list[Rate]:
        """Look again, and tell what came and went since the look before. Raises AgentNotRunning."""
        (before, former), (self.time, found) = self._last, self._look()
        self._last = (self.time, found)
        self.seconds = max(self.time - before, 1e-3)
        return [_rate(now, former.get(key), self.seconds) for key, now in found.items()]

    def _look(self) -> tuple[float, dict[tuple[str, str], Json]]:
        answer = self._client.get("/v1/traffic")
        # The device as well: one that was removed and made again under its name begins at 0.
        return answer["time"], {(each["name"], each["device"] or ""): each for each in answer["namespaces"]}


def _rate(now: Json, before: Json | None, seconds: float) -> Rate:
    def per_second(counter: str) -> float:
        # One that was not there yet has carried everything since.
        carried: int = now[counter] - (before[counter] if before else 0)
        return max(carried, 0) / seconds

    return Rate(
        name=now["name"],
        network=now["network"] or "",
        device=now["device"] or "",
        receive=per_second("receive_bytes"),
        transmit=per_second("transmit_bytes"),
        receive_packets=per_second("receive_packets"),
        transmit_packets=per_second("transmit_packets"),
        received=now["receive_bytes"],
        transmitted=now["transmit_bytes"],
        connections=now["connections"],
    )


def cells(rate: Rate) -> tuple[str, ...]:
    """What stands under HEAD, not yet escaped."""
    return (
        rate.name,
        rate.network,
        f"{size(rate.receive)}/s",
        f"{size(rate.transmit)}/s",
        f"{rate.receive_packets:.0f}",
        f"{rate.transmit_packets:.0f}",
        str(rate.connections),
        size(rate.received),
        size(rate.transmitted),
    )


def size(count: float) -> str:
    """``1234567`` as ``1.2 MB``: decimal units, as on the label of a network card."""
    unit = 0
    while round(count) >= THOUSAND and unit < len(UNITS) - 1:
        count /= THOUSAND
        unit += 1
    return f"{count:.0f} {UNITS[unit]}" if unit == 0 or count >= UNSPLIT else f"{count:.1f} {UNITS[unit]}"
