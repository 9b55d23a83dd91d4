"""What else networks namespaces: shell scripts, the CNI bridge plugin, netavark."""

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from agent.demo.isolation import refuse_initial_namespace
from agent.demo.private_host import PrivateHost
from tests.bench.contenders import Contender
from tests.bench.eyes import Eyes

_SCRIPTS = Path(__file__).parent / "shell"


class PeerFailed(Exception):
    """A peer's command did not succeed; the message is what it said, in one line."""


class Script(Contender):
    """A shell script of `ip` commands, as people write it."""

    title = "shell script"
    gateway = "10.90.0.1"
    script: ClassVar[str] = "namespace.sh"

    def prepare(self, host: PrivateHost, stack: ExitStack) -> None:
        run_script("host.sh")

    def network(self, netns: str, number: int, eyes: Eyes) -> None:
        command = ["sh", str(_SCRIPTS / self.script), netns, _address("10.90", number)]
        with _Running(command) as running:
            running.await_usable(eyes)

    def release(self, netns: str, number: int) -> None:
        """Nothing: the kernel deletes the pair together with the namespace."""


class BestScript(Script):
    """The same by whoever knows what costs time: no device is moved, two processes do it all."""

    title = "shell script at its best"
    script = "namespace-best.sh"


class Cni(Contender):
    """The bridge plugin with host-local addresses and masquerading, called as a container runtime calls it."""

    title = "CNI bridge"
    gateway = "10.88.0.1"
    program: ClassVar[Path] = Path("/usr/lib/cni/bridge")

    def prepare(self, host: PrivateHost, stack: ExitStack) -> None:
        self._config = json.dumps(
            {
                "cniVersion": "1.0.0",
                "name": "bench",
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": "10.88.0.0/16"}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        )

    def network(self, netns: str, number: int, eyes: Eyes) -> None:
        with self._running("ADD", netns) as running:
            running.await_usable(eyes)

    def release(self, netns: str, number: int) -> None:
        with self._running("DEL", netns):
            pass

    def _running(self, command: str, netns: str) -> "_Running":
        told = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": netns,
            "CNI_NETNS": f"/run/netns/{netns}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.program.parent),
        }
        return _Running([str(self.program)], self._config, told)


class Netavark(Contender):
    """Podman's; addresses are chosen by whoever calls it."""

    title = "netavark"
    gateway = "10.89.0.1"
    program: ClassVar[Path] = Path("/usr/lib/podman/netavark")

    def prepare(self, host: PrivateHost, stack: ExitStack) -> None:
        self._network = {
            "name": "bench",
            "id": "e" * 64,
            "driver": "bridge",
            "network_interface": "podman1",
            "subnets": [{"subnet": "10.89.0.0/16", "gateway": self.gateway}],
            "ipv6_enabled": False,
            "internal": False,
            "dns_enabled": False,
            "ipam_options": {"driver": "host-local"},
        }

    def network(self, netns: str, number: int, eyes: Eyes) -> None:
        with self._running("setup", netns, number) as running:
            running.await_usable(eyes)

    def release(self, netns: str, number: int) -> None:
        with self._running("teardown", netns, number):
            pass

    def _running(self, command: str, netns: str, number: int) -> "_Running":
        container: dict[str, Any] = {
            "container_id": f"{number:064x}",
            "container_name": netns,
            "networks": {"bench": {"static_ips": [_address("10.89", number)], "interface_name": "eth0"}},
            "network_info": {"bench": self._network},
        }
        return _Running([str(self.program), command, f"/run/netns/{netns}"], json.dumps(container))


PEERS: tuple[type[Contender], ...] = (Script, BestScript, Cni, Netavark)


def _address(prefix: str, number: int) -> str:
    """The first address is the gateway's."""
    high, low = divmod(number + 2, 256)
    return f"{prefix}.{high}.{low}"


def run_script(name: str, *arguments: str) -> None:
    """One of the scripts beside this file, to its end. Raises PeerFailed."""
    with _Running(["sh", str(_SCRIPTS / name), *arguments]):
        pass


class _Running:
    """A peer's command while it runs, a context manager: leaving waits for its end. Raises PeerFailed."""

    def __init__(self, command: list[str], given: str = "", environment: dict[str, str] | None = None) -> None:
        refuse_initial_namespace()
        self._command = command
        # Files, as a pipe that is full waits for somebody who looks elsewhere; in memory, as a disk takes its time.
        self._told = os.fdopen(os.memfd_create("told"), "w+b")
        with os.fdopen(os.memfd_create("given"), "w+b") as giving:
            giving.write(given.encode())
            giving.seek(0)
            self._process = subprocess.Popen(
                command,
                stdin=giving,
                stdout=self._told,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._told:
            code = self._process.wait()
            self._told.seek(0)
            told = " ".join(self._told.read().decode(errors="replace").split())
        if code != 0:
            raise PeerFailed(f"{' '.join(self._command)}: exit code {code}: {told}") from error

    def await_usable(self, eyes: Eyes) -> None:
        """As long as the command may still succeed."""
        eyes.await_usable(in_vain=lambda: self._process.poll() not in {None, 0})
