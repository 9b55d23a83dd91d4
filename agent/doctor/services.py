"""Checks of what namespaces can reach of the host itself."""

from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from agent.doctor.facts import Facts
from agent.doctor.finding import Finding
from agent.doctor.listeners import Listener
from agent.model import Network, Port

EVERYWHERE = ("0.0.0.0", "::")


def host_services(facts: Facts) -> Iterator[Finding]:
    """Every service that namespaces can open. Another firewall may forbid what ours allows."""
    for network in facts.config.networks:
        found = [each for each in facts.listeners if is_open(network, each)]
        if not found:
            yield Finding("host-services", "ok", f"network {network.name}: no service of this host is within reach")
            continue
        yield Finding(
            "host-services",
            "info",
            f"network {network.name}: namespaces can reach {_count(found)} of this host: {', '.join(_told(found))}",
            f'if they should not: host_access = "none", or a list of ports, in [network.{network.name}] of '
            f"{facts.config_file.path}",
        )


def metrics(facts: Facts) -> Iterator[Finding]:
    """Whether namespaces can read what all namespaces do."""
    host, port = facts.config.metrics_host, facts.config.metrics_port
    if _is_loopback(host):
        return
    for network in facts.config.networks:
        if _allows(network, Port("tcp", port)):
            yield Finding(
                "metrics-exposed",
                "warning",
                f"network {network.name}: namespaces can read the metrics and the page, which tell of all others",
                f'metrics.listen = "127.0.0.1:{port}", or host_access without tcp/{port} in '
                f"[network.{network.name}] of {facts.config_file.path}",
            )


def is_open(network: Network, listener: Listener) -> bool:
    """Tell whether namespaces of a network can open what somebody of the host listens on."""
    address = listener.ip
    if address.is_loopback or address.is_link_local or address.is_multicast:
        return False
    if address.version == 6 and not address.is_unspecified and network.subnet6 is None:
        return False
    return _allows(network, Port(listener.protocol, listener.port))


def _allows(network: Network, port: Port) -> bool:
    return network.host_access == "all" or (isinstance(network.host_access, tuple) and port in network.host_access)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _told(listeners: Sequence[Listener]) -> list[str]:
    """One text a service; that it listens on addresses of both families is no news."""
    texts = (
        f"{each.program} {each.protocol}/{each.port}{'' if each.address in EVERYWHERE else f' at {each.address}'}"
        for each in listeners
    )
    return list(dict.fromkeys(texts))


def _count(listeners: Sequence[Listener]) -> str:
    count = len(_told(listeners))
    return f"{count} service{'s' if count > 1 else ''}"
