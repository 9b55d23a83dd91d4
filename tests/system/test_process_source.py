"""Finding the namespaces of processes: real programs, the real kernel's events, a source without an agent."""

import asyncio
import contextlib
import errno
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from typing import IO, cast

import pytest

from agent.demo.isolation import inside
from agent.demo.private_host import PrivateHost
from agent.errors import HostError
from agent.kernel import connector, netnsfilter, procfs
from agent.kernel.realm import Realm
from agent.model import Origin
from agent.sources import processes
from agent.sources.processes import ProcessSource
from agent.sources.sink import Sink
from tests.harness.movers import moved
from tests.harness.netns import add_netns
from tests.harness.waiting import eventually

_TIMEOUT = 10.0
_TINY = 1


class Recorder:
    """A sink that keeps what it is told, and lets tests wait for more."""

    def __init__(self) -> None:
        self.origins: dict[str, Origin] = {}
        self.told: list[tuple[str, str]] = []
        self.losses = 0
        self.events = 0
        self._more = asyncio.Event()

    def process_appeared(self, origin: Origin) -> None:
        self.origins[origin.path] = origin
        self._tell("appeared", origin.path)

    def process_gone(self, path: str) -> None:
        # Nothing is taken back that was not told before.
        del self.origins[path]
        self._tell("gone", path)

    def heard(self, source: str, events: int) -> None:
        assert source == "connector"
        self.events += events

    def dropped(self, source: str) -> None:
        assert source == "connector"
        self.losses += 1
        self._more.set()

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        async with asyncio.timeout(_TIMEOUT):
            while not holds():
                self._more.clear()
                await self._more.wait()
        assert holds(), what

    def _tell(self, what: str, path: str) -> None:
        self.told.append((what, path))
        self._more.set()


@contextlib.asynccontextmanager
async def watching(
    is_known: Callable[[int], bool] = lambda _: False, buffer_bytes: int = connector.BUFFER_BYTES
) -> AsyncIterator[tuple[ProcessSource, Recorder]]:
    """A source in the private host, all that is there at start told."""
    recorder = Recorder()
    source = ProcessSource(cast(Sink, recorder), is_known, buffer_bytes)
    running = asyncio.create_task(source.run())
    try:
        async with asyncio.timeout(_TIMEOUT):
            await source.listed.wait()
        yield source, recorder
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@contextlib.contextmanager
def started(*command: str) -> Iterator[tuple[str, IO[bytes]]]:
    """A program that goes on until its input ends: the path to its namespace, and its input."""
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        yield f"/proc/{process.pid}/ns/net", process.stdin


def inode(path: str) -> int:
    return os.stat(path).st_ino


@pytest.mark.parametrize("way", ["exec", "clone", "fork", "name"])
async def test_a_new_namespace_is_told_and_its_end_too(private_host: PrivateHost, way: str) -> None:
    async with watching() as (_, recorder):
        with moved(way) as mover:
            await recorder.until(lambda: mover.path in recorder.origins, "told")
            assert recorder.origins[mover.path].pid == mover.pid
        await recorder.until(lambda: mover.path not in recorder.origins, "taken back")


async def test_what_is_known_of_the_process_is_told(private_host: PrivateHost) -> None:
    async with watching() as (_, recorder):
        with moved("exec") as mover:
            # Seen a moment before it ran the other program, it is told once more.
            await recorder.until(
                lambda: mover.path in recorder.origins and recorder.origins[mover.path].command == "cat", "told"
            )
            origin = recorder.origins[mover.path]
            process = procfs.describe(mover.pid)
            assert process is not None
            assert origin.source == "process"
            assert origin.cgroup == process.cgroup
            assert origin.user == "root"
            assert origin.name == (origin.container or f"pid:{mover.pid}:cat")


async def test_a_program_run_later_is_told(private_host: PrivateHost) -> None:
    async with watching() as (_, recorder):
        shell = "read line; exec cat -"
        with started("unshare", "-n", "sh", "-c", shell) as (path, standard_input):

            def runs(command: str) -> bool:
                return path in recorder.origins and recorder.origins[path].command == command

            await recorder.until(lambda: runs(f"sh -c {shell}"), "told")
            standard_input.write(b"\n")
            standard_input.flush()
            await recorder.until(lambda: runs("cat -"), "told anew")


async def test_what_was_there_before_is_told_at_start(private_host: PrivateHost) -> None:
    with moved("nothing") as mover:
        async with watching() as (_, recorder):
            assert mover.path in recorder.origins
            # The host itself and the machine's own are no business of anybody.
            inodes = {inode(path) for path in recorder.origins}
            assert inode("/proc/thread-self/ns/net") not in inodes
            assert not inodes & Realm().outside


async def test_a_program_that_moves_and_does_nothing_is_found_by_looking(private_host: PrivateHost) -> None:
    async with watching() as (source, recorder):
        with moved("nothing") as mover:
            source.rescan()
            await recorder.until(lambda: mover.path in recorder.origins, "told")


async def test_it_is_found_without_being_asked_for_too(private_host: PrivateHost) -> None:
    async with watching() as (_, recorder):
        with moved("nothing") as mover:
            await recorder.until(lambda: mover.path in recorder.origins, "told")


async def test_another_process_takes_over(private_host: PrivateHost) -> None:
    async with watching() as (_, recorder):
        with moved("fork") as mover:
            await recorder.until(lambda: mover.path in recorder.origins, "told")
            namespace = inode(mover.path)
            mover.kill()
            await recorder.until(lambda: mover.path not in recorder.origins, "taken back")
            (heir,) = (path for path in recorder.origins if inode(path) == namespace)
            # The new one first: the namespace is never without.
            assert recorder.told[-2:] == [("appeared", heir), ("gone", mover.path)]
        await recorder.until(lambda: heir not in recorder.origins, "taken back")


async def test_a_daemon_s_namespace_is_never_without(private_host: PrivateHost) -> None:
    async with watching() as (source, recorder):
        with moved("daemon") as mover:
            source.rescan()
            await recorder.until(lambda: mover.path in recorder.origins, "told")
            namespace = inode(mover.path)
            mover.go_on()
            await recorder.until(lambda: mover.path not in recorder.origins, "taken back")
            (heir,) = (path for path in recorder.origins if inode(path) == namespace)
            assert recorder.told[-2:] == [("appeared", heir), ("gone", mover.path)]


async def test_one_that_only_entered_takes_over(private_host: PrivateHost) -> None:
    async with watching() as (_, recorder):
        with moved("exec") as first:
            await recorder.until(lambda: first.path in recorder.origins, "told")
            with moved("setns", first.path) as second:
                # Nobody has heard of the second: it takes a look at all processes.
                first.kill()
                await recorder.until(lambda: first.path not in recorder.origins, "taken back")
                assert recorder.told[-2:] == [("appeared", second.path), ("gone", first.path)]


async def test_one_namespace_is_told_once_however_many_are_in_it(private_host: PrivateHost) -> None:
    async with watching() as (source, recorder):
        with moved("exec") as first:
            await recorder.until(lambda: first.path in recorder.origins, "told")
            with moved("setns-exec", first.path) as second, moved("setns", first.path) as third:
                source.rescan()
                with moved("clone") as other:
                    await recorder.until(lambda: other.path in recorder.origins, "told")
                    assert not {second.path, third.path} & recorder.origins.keys()


async def test_two_hundred_short_lived_ones_leave_nothing(private_host: PrivateHost) -> None:
    files = len(os.listdir("/proc/self/fd"))
    async with watching() as (_, recorder):
        before = set(recorder.origins)
        command = "for each in $(seq 200); do unshare -n sleep 0.05 & done; wait"
        shell = await asyncio.create_subprocess_exec("sh", "-c", command)
        with moved("clone") as mover:
            await recorder.until(lambda: mover.path in recorder.origins, "told in the midst of it")
            await shell.wait()
            await recorder.until(lambda: recorder.origins.keys() - before == {mover.path}, "all taken back")
        # On a busy machine some are over before anybody could look.
        assert sum(what == "appeared" for what, _ in recorder.told) > 20
        assert recorder.losses == 0
    assert len(os.listdir("/proc/self/fd")) <= files


async def test_a_loss_is_told_and_what_was_missed_is_found(private_host: PrivateHost) -> None:
    async with watching(buffer_bytes=_TINY) as (_, recorder):
        with moved("burst") as mover:
            await recorder.until(lambda: mover.path in recorder.origins, "told")
            mover.go_on()
            child, _ = await asyncio.to_thread(mover.said)
            await recorder.until(lambda: recorder.losses > 0, "a loss is told")
            await recorder.until(lambda: f"/proc/{child}/ns/net" in recorder.origins, "found all the same")


async def test_what_is_known_already_is_not_told(private_host: PrivateHost) -> None:
    add_netns("web")
    web = inode("/run/netns/web")
    async with watching(is_known=lambda found: found == web) as (_, recorder):
        with started("ip", "netns", "exec", "web", "cat") as (path, _), moved("clone") as mover:
            await recorder.until(lambda: mover.path in recorder.origins, "told")
            assert path not in recorder.origins


async def test_a_name_s_processes_are_told_where_nobody_knows_it(private_host: PrivateHost) -> None:
    add_netns("web")
    async with watching() as (_, recorder):
        with started("ip", "netns", "exec", "web", "cat") as (path, _):
            await recorder.until(lambda: path in recorder.origins, "told")


async def test_our_own_threads_are_not_mistaken(private_host: PrivateHost) -> None:
    add_netns("web")
    async with watching() as (source, recorder):
        with inside("web"), moved("clone") as mover:
            source.rescan()
            await recorder.until(lambda: mover.path in recorder.origins, "told")
            assert f"/proc/{os.getpid()}/ns/net" not in recorder.origins


async def test_a_process_that_moves_on_stands_for_where_it_is(private_host: PrivateHost) -> None:
    add_netns("web")
    async with watching() as (source, recorder):
        with moved("on", "/run/netns/web") as mover:
            source.rescan()
            await recorder.until(lambda: mover.path in recorder.origins, "told")
            mover.go_on()
            moved_on = [("gone", mover.path), ("appeared", mover.path)]
            await recorder.until(lambda: recorder.told[-2:] == moved_on, "taken back, and told anew")
            assert inode(mover.path) == inode("/run/netns/web")


async def test_a_process_that_goes_home_stands_for_nothing(private_host: PrivateHost) -> None:
    async with watching() as (source, recorder):
        with moved("on", f"/proc/{os.getpid()}/ns/net") as mover:
            source.rescan()
            await recorder.until(lambda: mover.path in recorder.origins, "told")
            mover.go_on()
            await recorder.until(lambda: mover.path not in recorder.origins, "taken back")


async def test_without_events_it_looks_now_and_then(private_host: PrivateHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise HostError("no connector")

    monkeypatch.setattr(processes, "Connector", refuse)
    async with watching() as (source, recorder):
        assert source.remark.startswith("no connector; ")
        with moved("exec") as mover:
            await recorder.until(lambda: mover.path in recorder.origins, "told")
            assert recorder.events == 0
        await recorder.until(lambda: mover.path not in recorder.origins, "taken back")


async def test_without_a_better_filter_it_says_so_and_works(
    private_host: PrivateHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(netnsfilter, "pass_elsewhere", refuse)
    async with watching() as (source, recorder):
        assert "bpf" in source.remark
        with moved("exec") as mover:
            await recorder.until(lambda: mover.path in recorder.origins, "told")
            assert recorder.events > 0


async def test_with_events_there_is_nothing_to_remark(private_host: PrivateHost) -> None:
    async with watching() as (source, _):
        assert source.remark == ""


async def test_too_few_files_are_remarked(private_host: PrivateHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with watching() as (source, recorder):
        with moved("nothing") as mover:
            with monkeypatch.context() as patched:
                patched.setattr(os, "pidfd_open", refuse)
                source.rescan()
                await asyncio.to_thread(eventually, lambda: source.remark, _TIMEOUT, "remarked")
            # With files to be had it is told, by the next look.
            await recorder.until(lambda: mover.path in recorder.origins, "told")


async def test_a_mistake_in_the_thread_ends_the_source(private_host: PrivateHost) -> None:
    def fail(_: int) -> bool:
        raise ZeroDivisionError

    recorder = Recorder()
    source = ProcessSource(cast(Sink, recorder), fail)
    with moved("nothing"), pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(_TIMEOUT):
            await source.run()
