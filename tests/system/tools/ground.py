"""Where the tools run: control groups of their own, and a root directory for containers."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from agent.demo import internet, uplink
from agent.demo.isolation import mount, refuse_initial_namespace
from tests.harness.cgroups import command_in, own_cgroups

ROOTFS, HOME = Path("/run/rootfs"), Path("/run/home")
# Waits for a network, and says how the internet sees it: by the host's address, when all is well.
ONLINE = f"until ip route | grep -q ^default; do sleep 0.05; done; nc {uplink.BEYOND4} {internet.WHOAMI_PORT}"
HOST = uplink.HOST4
_APPLETS = ("sh", "ip", "nc", "sleep", "grep", "cat", "true", "touch", "test")
_TIMEOUT = 30.0
_PLACES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def need(*programs: str) -> None:
    """Skip the test where a program is not installed."""
    missing = [program for program in programs if shutil.which(program, path=":".join(_PLACES)) is None]
    if missing:
        pytest.skip(f"not installed, or not to be had beside what is: {', '.join(missing)} (make test-packages)")


@contextlib.contextmanager
def ground() -> Iterator[None]:
    """In the private host that the calling thread is in."""
    need("busybox")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(own_cgroups())
        except OSError as error:
            pytest.skip(f"control groups cannot be had here: {error}")
        # Podman's locks are there, by a name that all of them use.
        mount("vethd-host", "/dev/shm", "tmpfs", data="mode=1777")
        HOME.mkdir(mode=0o777)
        HOME.chmod(0o777)
        _make_rootfs()
        yield


def run(*command: str, group: str = "/tools", env: Mapping[str, str] | None = None, timeout: float = _TIMEOUT) -> str:
    """Run a tool to its end; what it says. Fails with its standard error."""
    with started(*command, group=group, env=env) as process:
        said, complaint = process.communicate(timeout=timeout)
    assert process.returncode == 0, f"{' '.join(command)}: exit code {process.returncode}: {complaint.strip()}"
    return said


@contextlib.contextmanager
def started(
    *command: str, group: str = "/tools", env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Have a tool run for the length of the block."""
    refuse_initial_namespace()
    environment = {**os.environ, "PATH": ":".join(_PLACES), "HOME": str(HOME), "TMPDIR": "/run", **(env or {})}
    with subprocess.Popen(
        command_in(group, command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _make_rootfs() -> None:
    for directory in ("bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "var"):
        (ROOTFS / directory).mkdir(parents=True)
    (ROOTFS / "etc/os-release").write_text("ID=busybox\n")
    shutil.copy(shutil.which("busybox", path=":".join(_PLACES)) or "", ROOTFS / "bin/busybox")
    for applet in _APPLETS:
        (ROOTFS / "bin" / applet).symlink_to("busybox")
    if subprocess.run(["chroot", str(ROOTFS), "/bin/true"], check=False, capture_output=True).returncode:
        pytest.skip("busybox runs nowhere but here: install busybox-static in its place")
