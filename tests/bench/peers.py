"""What else networks namespaces: shell scripts, the CNI bridge plugin, netavark."""

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

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
        _run(["sh", str(_SCRIPTS / "host.sh")])

    def network(self, netns: str, number: int, eyes: Eyes) -> None:
        _run(["sh", str(_SCRIPTS / self.script), netns, _address("10.90", number)])

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
        self._call("ADD", netns)

    def release(self, netns: str, number: int) -> None:
        self._call("DEL", netns)

    def _call(self, command: str, netns: str) -> None:
        told = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": netns,
            "CNI_NETNS": f"/run/netns/{netns}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.program.parent),
        }
        _run([str(self.program)], self._config, told)


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
        self._call("setup", netns, number)

    def release(self, netns: str, number: int) -> None:
        self._call("teardown", netns, number)

    def _call(self, command: str, netns: str, number: int) -> None:
        container: dict[str, Any] = {
            "container_id": f"{number:064x}",
            "container_name": netns,
            "networks": {"bench": {"static_ips": [_address("10.89", number)], "interface_name": "eth0"}},
            "network_info": {"bench": self._network},
        }
        _run([str(self.program), command, f"/run/netns/{netns}"], json.dumps(container))


PEERS: tuple[type[Contender], ...] = (Script, BestScript, Cni, Netavark)


def _address(prefix: str, number: int) -> str:
    """The first address is the gateway's."""
    high, low = divmod(number + 2, 256)
    return f"{prefix}.{high}.{low}"


def _run(command: list[str], given: str = "", environment: dict[str, str] | None = None) -> None:
    refuse_initial_namespace()
    done = subprocess.run(
        command, input=given, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        told = " ".join(f"{done.stdout} {done.stderr}".split())
        raise PeerFailed(f"{' '.join(command)}: exit code {done.returncode}: {told}")
