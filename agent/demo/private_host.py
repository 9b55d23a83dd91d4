"""A host of its own, made of namespaces, on the machine that runs this program."""

import contextlib
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pyroute2 import NetlinkError

from agent.demo import internet, uplink
from agent.demo.isolation import (
    CLONE_FS,
    CLONE_NEWNET,
    CLONE_NEWNS,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    NETNS_DIR,
    PrivateHostError,
    in_initial_namespace,
    inside,
    mount,
    namespace_fd,
    refuse_initial_namespace,
    setns,
    unmount,
    unshare,
)
from agent.demo.stragglers import end_stragglers

_OVERLAID = ("/etc", "/var/lib")
_OURS = ("/etc/vethd", "/etc/netns", "/var/lib/vethd")
_READY_TIMEOUT = 10.0


class PrivateHost:
    """A whole host to network namespaces on, apart from the machine: a context manager.

    ::

        private host (network + mount namespace)         "internet" (anonymous namespace)
        +------------------------------------+           +-------------------------------------+
        | lo                                 |   veth    | lo     198.51.100.1  2001:db8:1::1  |
        | up0  192.0.2.2/24  ------------------------------- inet0  192.0.2.1/24               |
        |      2001:db8:2::2/64              |           |          2001:db8:2::1/64           |
        | default via 192.0.2.1              |           | no route to anything else: only     |
        |         and 2001:db8:2::1          |           | masqueraded traffic gets an answer  |
        | own /run, /etc, /var/lib, /sys     |           | tcp/7 udp/7 echo, tcp/8 who am I    |
        +------------------------------------+           +-------------------------------------+

    Entering moves the *calling thread* there and nothing else of the process; what that thread
    starts (processes, threads) inherits it. Leaving, on the same thread, ends every process
    that still lives in the host or in one of its named namespaces, and moves the thread back:
    the kernel then drops the mounts and namespaces, and nothing is left. Making one takes some
    0.1 s. Several may stand side by side, in one process (one a thread) or in many.

    - `/run` is an empty tmpfs, mounted shared, so that `ip netns add` makes `/run/netns` in the
      way it does on a freshly booted machine, and mounts reach slave mount namespaces.
    - `/etc` and `/var/lib` show what the machine has; what is written there is thrown away
      (overlays; where the kernel has none, only vethd's own directories there are covered).
    - `/sys` is mounted anew: `/sys/class/net` shows the host's devices.
    - IP forwarding is off, there is no nftables table and no tracked connection: as after boot.
    - The internet's servers are a process of their own (`agent.demo.internet`), which ends with
      this one. *Who am I* answers a TCP connection with the address that it comes from, which
      tells whether traffic was masqueraded.

    `mtu`: of the uplink, both ends, in bytes.

    Raises `PrivateHostError` where such a host cannot be made (not root, a kernel without what
    it takes) or where the thread is found in the machine's own network namespace after all.
    """

    def __init__(self, mtu: int = 1500) -> None:
        self.mtu = mtu
        self._thread = 0
        self._undo = contextlib.ExitStack()
        self._children: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Self:
        self._thread = threading.get_ident()
        with contextlib.ExitStack() as undo:
            try:
                self._leave_machine(undo)
                self._build(undo)
            except (OSError, NetlinkError) as error:
                hint = "" if os.geteuid() == 0 else ": it takes root"
                raise PrivateHostError(f"cannot make a private host{hint}: {error}") from error
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if threading.get_ident() != self._thread:
            raise PrivateHostError("a private host is left on the thread that entered it")
        self._undo.close()

    @property
    def internet(self) -> Path:
        """The far namespace, for `agent.demo.isolation.inside` and the like."""
        return Path(f"/proc/{self._children[0].pid}/ns/net")

    def spawn(self, args: list[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a process in the host, to be ended with it at the latest.

        `options` are those of `subprocess.Popen`.
        """
        refuse_initial_namespace()
        child = subprocess.Popen(args, **options)
        self._children.append(child)
        return child

    def _leave_machine(self, undo: contextlib.ExitStack) -> None:
        """From here on this thread is elsewhere; `undo` leads it back."""
        cwd = os.open(".", os.O_PATH | os.O_CLOEXEC)
        undo.callback(os.close, cwd)
        net, mnt = namespace_fd("net"), namespace_fd("mnt")
        undo.callback(os.close, net)
        undo.callback(os.close, mnt)
        unshare(CLONE_NEWNET | CLONE_NEWNS)
        # setns to a mount namespace moves the working directory to its root.
        undo.callback(os.fchdir, cwd)
        undo.callback(setns, net, CLONE_NEWNET)
        undo.callback(setns, mnt, CLONE_NEWNS)
        # A thread started in here and still running shares our working directory, and setns
        # refuses to change the mount namespace of one without the other.
        undo.callback(unshare, CLONE_FS)
        if in_initial_namespace():
            raise PrivateHostError("still in the machine's own network namespace after unshare")
        mount("", "/", flags=MS_REC | MS_PRIVATE)

    def _build(self, undo: contextlib.ExitStack) -> None:
        _mount_private_directories()
        # The first namespace becomes the internet, the second one the host.
        beyond_fd = namespace_fd("net")
        undo.callback(os.close, beyond_fd)
        undo.callback(self._end_stragglers, beyond_fd)
        undo.callback(self._end_children)
        with contextlib.closing(uplink.Side()) as beyond:
            unshare(CLONE_NEWNET)
            # sysfs shows the network namespace of whoever mounts it.
            mount("sysfs", "/sys", "sysfs")
            with contextlib.closing(uplink.Side()) as host:
                uplink.connect(host, beyond, beyond_fd, self.mtu)
        with inside(Path(f"/proc/thread-self/fd/{beyond_fd}")):
            self._start_servers()
        uplink.check_reach()

    def _start_servers(self) -> None:
        """Once all addresses are there: a socket bound too early may answer from another one."""
        # Isolated and without site-packages: up in half the time.
        command = [sys.executable, "-I", "-S", internet.__file__]
        servers = self.spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert servers.stdout is not None
        readable, _, _ = select.select([servers.stdout], [], [], _READY_TIMEOUT)
        if not readable or servers.stdout.readline() != internet.READY:
            raise PrivateHostError("the servers beyond the uplink did not start")

    def _end_children(self) -> None:
        for child in self._children:
            child.kill()
        for child in self._children:
            child.wait()
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream is not None:
                    stream.close()
        self._children.clear()

    def _end_stragglers(self, beyond_fd: int) -> None:
        refuse_initial_namespace()
        own = [os.fstat(beyond_fd).st_ino]
        own += [os.stat(f"/proc/thread-self/ns/{kind}").st_ino for kind in ("mnt", "net")]
        end_stragglers(own, _named_inodes())


def _mount_private_directories() -> None:
    # A mounted overlay keeps its layers: the tmpfs they are in need not be seen by anyone.
    mount("vethd-layers", "/run", "tmpfs")
    for number, path in enumerate(_OVERLAID):
        upper, work = f"/run/{number}/upper", f"/run/{number}/work"
        os.makedirs(upper)
        os.makedirs(work)
        layers = f"lowerdir={path},upperdir={upper},workdir={work}"
        # Second best where overlays cannot be had: cover what is there.
        try:
            mount("vethd-host", path, "overlay", data=layers)
        except OSError:
            for ours in filter(os.path.isdir, _OURS):
                if ours.startswith(path):
                    mount("vethd-host", ours, "tmpfs", data="mode=755")
    unmount("/run")
    mount("vethd-host", "/run", "tmpfs", data="mode=755")
    mount("", "/run", flags=MS_SHARED)


def _named_inodes() -> Iterator[int]:
    # Asked of the file, not of the directory entry: that one knows only what is mounted over.
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(NETNS_DIR):
            with contextlib.suppress(OSError):
                yield entry.stat().st_ino
