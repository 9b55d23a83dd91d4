"""The kernel layer in a private host, used as the reconciler uses it, without one."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent.core.hostplan import bridge_of, host_plan
from agent.core.plan import plan
from agent.core.roster import named
from agent.core.steps import Step
from agent.kernel.attachments import Attachments
from agent.kernel.host import observe_host
from agent.kernel.hostwork import apply_host
from agent.kernel.namespaces import Handle, Namespaces
from agent.kernel.netlink import Netlink
from agent.kernel.reaper import Last, Reaper, Removal
from agent.kernel.ruleset import Ruleset
from agent.model import Attachment, Bridge, Cookie, Network, Observed
from tests.harness import netns, observe
from tests.harness.netns import Name
from tests.unit.worlds import lease_in, network

NETNS = Path("/run/netns")


def sh(command: str, where: Name | None = None) -> str:
    """What somebody does by hand, in a namespace or in the host; its output. It has to succeed."""
    return observe.run("sh", "-c", command, netns=where)


def remove(reaper: Reaper, removals: Sequence[Removal]) -> list[Last]:
    """Take attachments down, as the crew does it on two threads."""
    with contextlib.closing(reaper.begin(removals)) as deletion:
        return reaper.finish(removals, deletion)


class Ground:
    """Bridges, ruleset, and attachments of namespaces by name; leases go by order of appearance."""

    def __init__(self, networks: Sequence[Network] | None = None) -> None:
        self.networks = networks or [network()]
        self.namespaces = Namespaces()
        self.attachments = Attachments(self.namespaces)
        self.netlink = Netlink()
        apply_host(host_plan(self.networks, observe_host(self.netlink, self.networks), {}))
        self.ruleset = Ruleset()
        self.ruleset.load(self.networks, [])
        self._leases: dict[Cookie, int] = {}

    def close(self) -> None:
        self.attachments.close()
        self.netlink.close()
        self.namespaces.close()

    def bridge(self, place: int = 0) -> Bridge:
        found = bridge_of(self.networks[place], observe_host(self.netlink, self.networks))
        assert found is not None
        return found

    def desired(self, name: str, place: int = 0) -> Attachment:
        with self.namespaces.open(f"{NETNS / name}") as handle:
            cookie = handle.cookie
        index = self._leases.setdefault(cookie, 2 + len(self._leases))
        net = self.networks[place]
        routed = index - 2 >= net.bridge_ports
        return Attachment(cookie, name, net, lease_in(net, index, routed), self.bridge(place))

    def observe(self, name: str, place: int = 0) -> tuple[Handle, Observed]:
        desired = self.desired(name, place)
        return self.attachments.observe(named(f"{NETNS / name}"), lambda _: (desired.bridge, desired.lease))

    def planned(self, name: str, place: int = 0) -> tuple[Step, ...]:
        handle, seen = self.observe(name, place)
        handle.close()
        return plan(self.desired(name, place), seen)

    def do(self, name: str, steps: Sequence[Step], place: int = 0) -> None:
        handle, _ = self.observe(name, place)
        with handle:
            self.attachments.apply(steps, handle)

    def settle(self, name: str, place: int = 0, *, new: bool = False) -> tuple[Step, ...]:
        """Bring a namespace to where it should be; the steps that took."""
        handle, seen = self.observe(name, place)
        with handle:
            steps = plan(self.desired(name, place), replace(seen, new=new))
            self.attachments.apply(steps, handle)
        return steps

    def add(self, *names: str, place: int = 0) -> None:
        """Make namespaces and network them."""
        netns.add_many(list(names))
        for name in names:
            self.settle(name, place, new=True)
