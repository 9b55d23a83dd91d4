"""Containers: bubblewrap, runc, podman, docker, LXC. The options keep to what a private host has."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from tests.harness.waiting import eventually
from tests.system.tools.ground import ROOTFS, run, started

# The controllers of the machine's control groups may be out of reach, and its limits may be lower than a default.
_PODMAN_RUN = ("--pids-limit=-1", "--ulimit=nofile=512:512", "--ulimit=nproc=512:512", "--log-driver=none")
_PODMAN = (
    "--cgroup-manager=cgroupfs",
    "--root=/run/podman/root",
    "--runroot=/run/podman/run",
    "--tmpdir=/run/podman/tmp",
    "--network-config-dir=/run/podman/networks",
    "--storage-driver=vfs",
    "--events-backend=none",
)
_DOCKER = {"DOCKER_HOST": "unix:///run/docker.sock"}
_DOCKERD = (
    "--host=unix:///run/docker.sock",
    "--pidfile=/run/docker.pid",
    "--data-root=/run/docker-data",
    "--exec-root=/run/docker-exec",
    "--storage-driver=vfs",
    "--exec-opt=native.cgroupdriver=cgroupfs",
)
_LXC = """
lxc.uts.name = web
lxc.rootfs.path = dir:{rootfs}
lxc.mount.auto = proc:mixed sys:ro
lxc.apparmor.profile = unconfined
lxc.cgroup.relative = 1
{network}
"""
LXC_EMPTY = "lxc.net.0.type = empty"
GATEWAYS = {"podman": "10.88.0.1", "lxc": "10.77.0.1", "cni": "10.66.0.1"}
LXC_VETH = """
lxc.net.0.type = veth
lxc.net.0.link = br0
lxc.net.0.flags = up
lxc.net.0.name = eth0
lxc.net.0.ipv4.address = 10.77.0.2/24
lxc.net.0.ipv4.gateway = 10.77.0.1
"""


def bwrap(*options: str, shell: str) -> str:
    """Run a shell in a bubblewrap sandbox; what it says."""
    return run("bwrap", *options, "--bind", str(ROOTFS), "/", "--proc", "/proc", "--dev", "/dev", "sh", "-c", shell)


def runc(name: str, shell: str) -> str:
    """Run a shell in a container, which is in the control group /runners/NAME; what it says."""
    bundle = Path("/run/bundle") / name
    bundle.mkdir(parents=True)
    run("runc", "spec", "--bundle", str(bundle))
    config = json.loads((bundle / "config.json").read_text())
    config["root"]["path"] = str(ROOTFS)
    config["process"] |= {"terminal": False, "args": ["sh", "-c", shell]}
    config["process"].pop("rlimits", None)
    config["linux"]["cgroupsPath"] = f"/runners/{name}"
    (bundle / "config.json").write_text(json.dumps(config))
    return run("runc", "--root", "/run/runc", "run", "--bundle", str(bundle), name)


def podman(network: str, shell: str) -> str:
    """Run a shell in a podman container; what it says. ``network`` is an argument of --network."""
    options = (*_PODMAN_RUN, f"--network={network}", "--rm", "--rootfs", str(ROOTFS))
    return run("podman", *_PODMAN, "--log-level=error", "run", *options, "sh", "-c", shell)


def make_bridge() -> None:
    """The bridge that LXC containers with a network of their own are ports of."""
    run("ip", "link", "add", "br0", "type", "bridge")
    run("ip", "address", "add", f"{GATEWAYS['lxc']}/24", "dev", "br0")
    run("ip", "link", "set", "br0", "up")


def lxc(program: str, network: str, shell: str, name: str = "web") -> str:
    """Run a shell in an LXC container by ``lxc-start`` or ``lxc-execute``; what it says."""
    home = Path("/run/lxc")
    home.mkdir(exist_ok=True)
    config = home / f"{name}.conf"
    config.write_text(_LXC.format(rootfs=ROOTFS, network=network))
    foreground = ("-F",) if program == "lxc-start" else ()
    # The console of lxc-start is no pipe.
    command = ("--", "/bin/sh", "-c", f"({shell}) >/said")
    run(program, "-P", str(home), "-n", name, "-f", str(config), *foreground, *command)
    return (ROOTFS / "said").read_text()


@contextlib.contextmanager
def dockerd() -> Iterator[None]:
    """Have a docker daemon of the host's own run for the length of the block, with an image ``busybox``."""
    # The daemon loads modules into the kernel, which is everybody's.
    modprobe = Path("/run/no-modules/modprobe")
    modprobe.parent.mkdir()
    modprobe.write_text("#!/bin/sh\nexit 1\n")
    modprobe.chmod(0o755)
    path = f"{modprobe.parent}:{os.defpath}:/usr/sbin:/sbin"
    log = Path("/run/dockerd.log")
    command = ("sh", "-c", f'exec dockerd "$@" >{log} 2>&1', "dockerd", *_DOCKERD)
    with started(*command, env={"PATH": path}) as daemon:

        def is_up() -> bool:
            assert daemon.poll() is None, log.read_text()
            return Path("/run/docker.sock").exists()

        eventually(is_up, 20, "the docker daemon is up")
        tar = "/run/rootfs.tar"
        run("tar", "-C", str(ROOTFS), "-cf", tar, ".")
        run("docker", "import", tar, "busybox", env=_DOCKER)
        yield
        daemon.terminate()
        daemon.wait(20)


def docker(network: str, shell: str) -> str:
    """Run a shell in a docker container; what it says. ``network`` is an argument of --network."""
    return run("docker", "run", "--rm", f"--network={network}", "busybox", "sh", "-c", shell, env=_DOCKER)


def cni(name: str, shell: str) -> str:
    """Run a shell in a named namespace with a network by the CNI bridge plugin; what it says."""
    plugin = Path("/usr/lib/cni/bridge")
    config = {
        "cniVersion": "1.0.0",
        "name": "test",
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.66.0.0/16"}]], "dataDir": "/run/cni"},
    }
    told = {
        "CNI_CONTAINERID": name,
        "CNI_NETNS": f"/run/netns/{name}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(plugin.parent),
    }

    def call(command: str) -> None:
        given = Path("/run/cni.json")
        given.write_text(json.dumps(config))
        run("sh", "-c", f"exec {plugin} <{given}", env={**told, "CNI_COMMAND": command})

    run("ip", "netns", "add", name)
    call("ADD")
    said = run("ip", "netns", "exec", name, "busybox", "sh", "-c", shell)
    call("DEL")
    run("ip", "netns", "del", name)
    return said
