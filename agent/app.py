"""Builds everything and runs it; nothing else knows all the parts.

Order matters: watch first, then list, then look, then act. Stopping leaves the network up.
"""

import asyncio
import errno
import gc
import resource
import signal
import sys
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from agent.config import Config, load
from agent.core.hostplan import FORWARDING6
from agent.errors import ConfigError, VethdError
from agent.export import log
from agent.export.listeners import Listeners
from agent.export.metrics import Metrics
from agent.export.sampler import Sampler
from agent.kernel import faults, sysctl
from agent.kernel.crew import Crew
from agent.kernel.namespaces import Namespaces
from agent.kernel.preflight import claim_host, require_privileges
from agent.kernel.privileges import give_up_all_but, needed
from agent.model import Network
from agent.notify import notify, watchdog_seconds
from agent.reconciler.bulletin import Bulletin
from agent.reconciler.keeping import Keeper
from agent.reconciler.loop import Reconciler
from agent.reconciler.watched import Watch
from agent.reconciler.wishing import wish_directories
from agent.reconciler.world import World
from agent.sources.generations import GenerationSource
from agent.sources.links import LinkSource
from agent.sources.named import NamedSource
from agent.sources.processes import ProcessSource
from agent.sources.resolvconf import ResolvConfSource
from agent.sources.wishfiles import WishSource
from agent.state.resolvers import SOURCES, Resolvers

if TYPE_CHECKING:
    from agent.export.server import Server

# What a service may open by systemd, and by far more than is needed.
_FILES: Final = 65_536
_LAG_SECONDS: Final = 5.0
# The worker threads are woken by the loop for tiny tasks: a long interval would be their latency.
_SWITCH_SECONDS: Final = 0.0005

_log = structlog.get_logger()


def run(config: Config, log_format: log.LogFormat) -> int:
    """Run the agent in the foreground until SIGTERM or SIGINT; return the exit code."""
    log.configure(log_format)
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        require_privileges()
        _open_more_files()
        give_up_all_but(needed(config.socket_group is not None, config.metrics_port))
        with claim_host():
            asyncio.run(_App(config).run())
    except ConfigError as error:
        sys.stderr.write(f"vethd: {error}\n")
        return 2
    except VethdError as error:
        sys.stderr.write(f"vethd: {error}\n")
        return 1
    return 0


class _App:
    def __init__(self, config: Config) -> None:
        config = _without_missing_ipv6(config)
        self._namespaces = Namespaces()
        self._world = World(config, self._namespaces.host)
        self._bulletin = Bulletin()
        self._lag = 0.0
        self._watch = Watch(self._world)
        self._sampler = Sampler(self._world, self._watch)
        self._metrics = Metrics(self._world, lambda: self._sampler.table, lambda: self._lag)
        self._bulletin.listen(self._metrics.on_notice)
        self._bulletin.listen(log.on_notice)
        self._crew = Crew(self._namespaces, faults.on_step(), sees_rivals=config.mode == "observe")
        self._reconciler = Reconciler(self._world, self._crew, self._bulletin, self._watch)
        self._named = NamedSource(config.directories, self._namespaces.is_namespace, self._reconciler.hearing)
        if config.dns == "host" and config.mode == "manage":
            self._world.resolvers = Resolvers()
        self._keeper = Keeper(self._world)
        self._bulletin.listen(self._keeper.on_notice)
        self._group: asyncio.TaskGroup | None = None
        self._watches_processes = False
        self._ready = False
        self._started = time.monotonic()

    async def run(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_mistake)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        async with AsyncExitStack() as stack:
            stack.callback(self._namespaces.close)
            stack.push_async_callback(self._crew.close)
            interfaces = {network.interface for network in self._world.config.networks}
            devices = LinkSource(self._reconciler.hearing, interfaces)
            self._reconciler.listens_to_devices(devices.read)
            devices.start(loop)
            stack.callback(devices.close)
            self._keeper.recall()
            listeners = await Listeners.bind(self._world.config)
            stack.callback(listeners.close)
            # Found while the kernel loads the rules, looked at afterwards.
            names = asyncio.create_task(self._named.run(), name="named")
            stack.callback(names.cancel)
            await self._reconciler.host.begin(partial(self._listen_to_rules, stack))
            # Before any address is given away.
            await self._reconciler.sweep()
            work = asyncio.create_task(self._work(names, listeners, stack), name="work")
            stopping = asyncio.create_task(stop.wait(), name="stop")
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            notify("STOPPING=1")
            work.cancel()
            (failure,) = await asyncio.gather(work, return_exceptions=True)
            self._keeper.keep()
            if isinstance(failure, Exception):
                raise failure
        _log.info("stopped", uptime_seconds=round(time.monotonic() - self._started, 3))

    async def _work(self, names: asyncio.Task[None], listeners: Listeners, stack: AsyncExitStack) -> None:
        world = self._world
        async with asyncio.TaskGroup() as group:
            await self._follow_files(group)
            group.create_task(_until_over(names), name="names")
            await self._named.listed.wait()
            self._group = group
            processes = self._follow_processes()
            if processes is not None:
                await processes.listed.wait()
            self._reconciler.put_new_first()
            group.create_task(self._reconciler.run(), name="reconciler")
            serving = group.create_task(self._serve(listeners, stack), name="serve")
            group.create_task(self._keeper.run(), name="state")
            group.create_task(_feed_watchdog(), name="watchdog")
            group.create_task(self._measure_lag(), name="lag")
            await serving
            await self._reconciler.settled()
            await self._reconciler.take_down_strays()
            world.ledger.close_all_but({record.cookie for record in world.roster if record.cookie is not None})
            if world.resolvers is not None:
                await asyncio.to_thread(world.resolvers.keep_only, {record.name for record in world.roster})
            # What stands now stays: the collector need not go through it again and again.
            gc.collect()
            gc.freeze()
            self._ready = True
            states = [record.state for record in world.roster]
            _log.info(
                "ready",
                namespaces=len(states),
                networked=states.count("ready"),
                ms=round((time.monotonic() - self._started) * 1000, 3),
            )
            notify("READY=1")

    async def _follow_files(self, group: asyncio.TaskGroup) -> None:
        """Watch what namespaces wish for and the host's name servers; read both before anything is networked."""
        config = self._world.config
        for directory in wish_directories(config):
            wishes = WishSource(directory, self._reconciler.wishing)
            group.create_task(wishes.run(), name=f"wishes {directory}")
            await wishes.watching.wait()
        await self._reconciler.wishing.reload()
        if self._world.resolvers is not None:
            group.create_task(ResolvConfSource(SOURCES, self._reconciler.wishing).run(), name="name servers")

    async def _serve(self, listeners: Listeners, stack: AsyncExitStack) -> None:
        server = (await asyncio.to_thread(_load_server))(
            self._world, self._bulletin, self._metrics, self._sampler, lambda: self._ready
        )
        stack.push_async_callback(server.close)
        await server.start(listeners)

    def _listen_to_rules(self, stack: AsyncExitStack) -> None:
        generations = GenerationSource(self._reconciler.hearing, self._crew.own_ports)
        stack.callback(generations.close)
        generations.start(asyncio.get_running_loop())

    def _follow_processes(self) -> ProcessSource | None:
        """Watch processes from the moment on that any of their namespaces can be meant."""
        if self._group is None or self._watches_processes or not self._world.config.concerns_processes:
            return None
        processes = ProcessSource(self._reconciler.hearing, self._world.roster.is_named)
        self._watches_processes = True
        self._world.process_remark = lambda: processes.remark
        self._reconciler.rescan = processes.rescan
        self._group.create_task(processes.run(), name="processes")
        return processes

    async def _measure_lag(self) -> None:
        """See now and then how late the loop calls back."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_SECONDS
            await asyncio.sleep(_LAG_SECONDS)
            self._lag = max(0.0, loop.time() - due)

    def _reload(self) -> None:
        former = self._world.config
        if former.source is None:
            _log.warning("config not reloaded", reason="the agent runs on built-in defaults; give it --config")
            return
        notify("RELOADING=1")
        try:
            self._adopt_config(_without_missing_ipv6(load(former.source)))
        except ConfigError as error:
            _log.error("config not reloaded", reason=str(error))
        else:
            _log.info("config reloaded", config=str(former.source))
        notify("READY=1")

    def _adopt_config(self, config: Config) -> None:
        """Take over what can change while running. Raises ConfigError for what needs a restart."""
        former = self._world.config
        fixed = (
            "state_dir", "socket", "socket_group", "directories", "metrics_host", "metrics_port",
            "mode", "dns", "wishes",
        )  # fmt: skip
        for key in fixed:
            if getattr(config, key) != getattr(former, key):
                raise ConfigError(f"{former.source}: {key} changed: takes a restart (the network stays up)")
        if [_shape(network) for network in config.networks] != [_shape(network) for network in former.networks]:
            raise ConfigError(f"{former.source}: network: names, subnets, bridges, interfaces take a restart")
        self._world.config = config
        self._follow_processes()
        self._reconciler.wishing.wishes_changed()
        self._reconciler.host.suspect("the config")
        self._reconciler.resync()


def _load_server() -> "type[Server]":
    # aiohttp takes a tenth of a second to load: those that wait for their network come first.
    from agent.export.server import Server  # noqa: PLC0415

    return Server


def _open_more_files() -> None:
    """Raise the limit of open files as far as it may be: a shell's is low, and each watched process takes one."""
    # A service's sandbox may forbid it, and has set a limit itself then.
    with suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _without_missing_ipv6(config: Config) -> Config:
    """Return a config without IPv6 where the kernel was booted without it."""
    if sysctl.read(FORWARDING6) is not None or not any(network.subnet6 for network in config.networks):
        return config
    _log.warning("no IPv6", reason="this kernel has none: namespaces get IPv4 alone")
    return replace(config, networks=tuple(replace(network, subnet6=None) for network in config.networks))


def _shape(network: Network) -> Network:
    """Return a network without what can change while the agent runs."""
    return replace(
        network, nat=True, mtu=0, isolate=False, host_access="all", anti_spoof=True, reach=(), bridge_ports=0
    )


def _log_mistake(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
        # Who connects waits for a second then (asyncio, ACCEPT_RETRY_DELAY).
        _log.warning("nobody is let in for a moment", reason=f"{error.strerror}: raise the limit (ulimit -n)")
        return
    _log.error("a mistake of vethd", message=context.get("message"), exc_info=error)


async def _until_over(task: asyncio.Task[None]) -> None:
    await task


async def _feed_watchdog() -> None:
    seconds = watchdog_seconds()
    while seconds is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(seconds)
