"""The uplink of a private host: one veth pair, addresses and default routes, by netlink."""

import socket
from pathlib import Path

from pyroute2 import IPRoute

from agent.demo import internet
from agent.demo.isolation import PrivateHostError, refuse_initial_namespace
from agent.demo.probe import Changes

UPLINK = "up0"
HOST4, HOST6 = "192.0.2.2", "2001:db8:2::2"
ROUTER4, ROUTER6 = "192.0.2.1", "2001:db8:2::1"
BEYOND4, BEYOND6 = "198.51.100.1", "2001:db8:1::1"
_FAR_END = "inet0"
_PREFIX4, _PREFIX6 = 24, 64
# The addresses are ours alone, and nobody wants to wait a second for the kernel to find out.
_IFA_F_NODAD = 0x02
_TIMEOUT = 10.0


class Side:
    """One network namespace's netlink: what is asked, and apart from it what is heard.

    Made by a thread that is in that namespace, usable from anywhere.
    """

    def __init__(self) -> None:
        refuse_initial_namespace()
        self.ip = IPRoute()
        self._changes = Changes(None)

    def close(self) -> None:
        self.ip.close()
        self._changes.close()

    def index(self, name: str) -> int:
        return int(self.ip.link_lookup(ifname=name)[0])

    def set_up(self, name: str, *addresses: tuple[str, int]) -> None:
        index = self.index(name)
        for address, prefix in addresses:
            flags = {"flags": _IFA_F_NODAD} if ":" in address else {}
            self.ip.addr("add", index=index, address=address, prefixlen=prefix, **flags)
        self.ip.link("set", index=index, state="up")

    def await_up(self, name: str) -> None:
        """Until packets pass: carrier comes by the kernel's deferred link watch, after the ack."""
        index = self.index(name)

        def is_up() -> bool:
            return bool(self.ip.get_links(index)[0].get_attr("IFLA_OPERSTATE") == "UP")

        self._changes.until(is_up, _TIMEOUT, f"the uplink's {name} comes up")


def connect(host: Side, beyond: Side, beyond_fd: int, mtu: int) -> None:
    """Join the two namespaces; `beyond_fd` is the second one's, `mtu` in bytes for both ends.

    The calling thread must be in the host's.
    """
    refuse_initial_namespace()
    # A new namespace may inherit these from the machine.
    for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        Path("/proc/sys/net", path).write_text("0")
    peer = {"ifname": _FAR_END, "mtu": mtu, "net_ns_fd": beyond_fd}
    host.ip.link("add", ifname=UPLINK, kind="veth", mtu=mtu, peer=peer)
    beyond.set_up("lo", (BEYOND4, 32), (BEYOND6, 128))
    beyond.set_up(_FAR_END, (ROUTER4, _PREFIX4), (ROUTER6, _PREFIX6))
    host.set_up("lo")
    host.set_up(UPLINK, (HOST4, _PREFIX4), (HOST6, _PREFIX6))
    for router in (ROUTER4, ROUTER6):
        host.ip.route("add", dst="default", gateway=router, oif=host.index(UPLINK))
    host.await_up(UPLINK)
    beyond.await_up(_FAR_END)


def check_reach() -> None:
    """Exchange the first packets here, so that both ends know each other before any test."""
    for address in (BEYOND4, BEYOND6, ROUTER4, ROUTER6):
        try:
            with socket.create_connection((address, internet.ECHO_PORT), timeout=_TIMEOUT):
                pass
        except OSError as error:
            raise PrivateHostError(f"{address} beyond the uplink: {error}") from error
