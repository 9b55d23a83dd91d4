"""``vethd run --dry-run``: what the agent would do to this host now, told and not done.

It decides as the agent does, by the same functions, on what the kernel says at this moment.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from agent.config import Config
from agent.config.wishes import Wishes, load_wishes, stamps
from agent.core.hostplan import HostSeen, bridge_of, conflicts, find_originals, host_plan, network_mtu, told
from agent.core.identity import bridge_mac, printable
from agent.core.origin import origin_of
from agent.core.roster import named
from agent.errors import VethdError
from agent.kernel import procfs
from agent.kernel.attachments import Attachments
from agent.kernel.host import device_name, host_links, observe_host
from agent.kernel.namespaces import Namespaces
from agent.kernel.netlink import Netlink
from agent.kernel.preflight import require_privileges
from agent.kernel.realm import Realm
from agent.model import Bridge, Network, Observed, Origin
from agent.reconciler.look import Look
from agent.reconciler.wishing import wish_directories
from agent.reconciler.world import World
from agent.state.leases import LeaseFile


def rehearse(config: Config) -> Iterator[str]:
    """Yield one line for each thing that would be done. Raises VethdError where the agent could not run."""
    require_privileges()
    namespaces = Namespaces()
    attachments = Attachments(namespaces)
    try:
        with Netlink() as netlink:
            seen = observe_host(netlink, config.networks)
            yield from _host(config, seen)
            world = _world(config, namespaces, seen)
            world.adopt(host_links(netlink))
        for origin in (*_names(config, namespaces), *_processes(config)):
            yield f"{printable(origin.name)}: {_namespace(world, attachments, origin)}"
    finally:
        attachments.close()
        namespaces.close()


def _host(config: Config, seen: HostSeen) -> Iterator[str]:
    for network in config.networks:
        conflict = conflicts(network, seen)
        if conflict is not None:
            subnet, device = conflict
            yield f"host: network {network.name}: {subnet} is routed by {device_name(device)}: would not start"
    if config.mode == "observe":
        yield "host: nothing, since agent.mode is observe"
        return
    originals = find_originals(config.networks, seen, config.conntrack_accounting)
    for step in host_plan(config.networks, seen, originals, config.conntrack_accounting):
        yield f"host: {told(step)}"
    yield "host: load the nftables tables inet vethd and bridge vethd"


def _world(config: Config, namespaces: Namespaces, seen: HostSeen) -> World:
    world = World(config, namespaces.host)
    memory, _ = LeaseFile(config.state_dir).read()
    world.remember(memory)
    directories = wish_directories(config)
    world.wish_stamps = stamps(directories)
    world.take_wishes(tuple(load_wishes(directory, config.networks, Wishes()) for directory in directories))
    world.bridges = {network.name: bridge_of(network, seen) or _future(network, seen) for network in config.networks}
    return world


def _future(network: Network, seen: HostSeen) -> Bridge:
    """Return the bridge that would be made; it has no number yet."""
    gateways = tuple(each.packed for each in (network.gateway, network.gateway6) if each is not None)
    return Bridge(network.bridge, 0, bridge_mac(network.subnet), network_mtu(network, seen.uplink), gateways)


def _names(config: Config, namespaces: Namespaces) -> Iterator[Origin]:
    for directory in config.directories:
        paths = sorted(os.path.join(directory, name) for name in _listed(directory))
        yield from (named(path) for path in paths if namespaces.is_namespace(path))


def _listed(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _processes(config: Config) -> Iterator[Origin]:
    if not config.concerns_processes:
        return
    realm = Realm()
    for inode, pids in procfs.processes_by_netns().items():
        process = None if inode in realm.outside else procfs.describe(pids[0])
        if process is not None and realm.includes(pids[0], inode):
            yield origin_of(process, procfs.netns_path(pids[0]))


def _namespace(world: World, attachments: Attachments, origin: Origin) -> str:
    try:
        look = _look(world, attachments, origin)
    except VethdError as error:
        return f"would fail: {error}"
    return _told(look)


def _look(world: World, attachments: Attachments, origin: Origin) -> Look:
    look = Look(world, origin, None, young=False)

    def decide(seen: Observed) -> tuple[()]:
        look.decide(seen)
        return ()

    attachments.settle(origin, world.expected, decide, lambda _: None)
    return look


def _told(look: Look) -> str:
    if look.verdict is None:
        return "is another name of one above"
    if look.desired is None:
        return f"left alone: {look.verdict.rule}"
    lease = look.desired.lease
    what = f"{len(look.todo)} steps" if look.todo else "nothing to do"
    return f"{lease.address} on network {lease.network}, {what} ({look.verdict.rule})"
