"""Checks the host and the agent, and says what to do about each finding. Changes nothing."""

from agent.doctor import firewall, host, service, services, surroundings
from agent.doctor.facts import Agent, ConfigFile, Facts
from agent.doctor.finding import Finding

CHECKS = (
    host.rights,
    service.config,
    service.agent,
    service.privileges,
    service.processes,
    service.wishes,
    host.mounts,
    firewall.nftables,
    firewall.forward_drop,
    host.forwarding,
    host.router_advertisements,
    host.conntrack,
    surroundings.subnets,
    surroundings.uplink,
    surroundings.managers,
    services.host_services,
    services.metrics,
)


def examine(facts: Facts) -> list[Finding]:
    """Every check's findings, in the order in which one mends them."""
    return [finding for check in CHECKS for finding in check(facts)]


__all__ = ["Agent", "ConfigFile", "Facts", "Finding", "examine"]
