"""An executable model of the kernel for the host's side; its state is what the agent observes there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.core.hostplan import (
    AddBridgeAddress,
    AddBridgeRoute,
    HostSeen,
    HostStep,
    MakeBridge,
    SetBridge,
    WriteSetting,
    bridge_settings,
)
from agent.model import Address, Link
from tests.unit.model_kernel import Refused
from tests.unit.model_routes import ON_LINK_METRIC, on_link
from tests.unit.worlds import link


@dataclass
class ModelHost:
    """What the kernel does with each step; `Refused` where it would not do it."""

    seen: HostSeen

    def run(self, plan: Sequence[HostStep]) -> "ModelHost":
        for step in plan:
            self.apply(step)
        return self

    def apply(self, step: HostStep) -> None:
        match step:
            case MakeBridge(name, mac, mtu):
                if self.seen.bridges[name] is not None:
                    raise Refused(f"EEXIST: {name}")
                index = 50 + len([each for each in self.seen.bridges.values() if each])
                made = link(index, name, "bridge", mac=mac, mtu=mtu, up=False, carrier=False)
                self._set_bridge(made)
                fresh = dict.fromkeys(bridge_settings(name), "80")
                self.seen = replace(self.seen, settings={**self.seen.settings, **fresh})
            case SetBridge(name, mac, mtu, alias):
                if len(alias.encode()) > 255:
                    raise Refused("EINVAL: IFALIASZ")
                was = self._bridge(name)
                self._set_bridge(replace(was, mac=mac, mtu=mtu, alias=alias, up=True))
                if not was.up:
                    for each in self.seen.addresses:
                        self._add_route(each, was.index)
            case AddBridgeAddress(name, address):
                bridge = self._bridge(name)
                added = Address(bridge.index, address.packed, address.network.prefixlen)
                same = [
                    each
                    for each in self.seen.addresses
                    if (each.device, each.address) == (bridge.index, address.packed)
                ]
                if added in same or (same and address.version == 6):
                    return
                self.seen = replace(self.seen, addresses=self.seen.addresses | {added})
                self._add_route(added, bridge.index)
            case AddBridgeRoute(name, address):
                bridge = self._bridge(name)
                if not bridge.up:
                    raise Refused("ENETDOWN")
                self._add_route(Address(bridge.index, address.packed, address.network.prefixlen), bridge.index)
            case WriteSetting(name, value):
                if self.seen.settings[name] is None:
                    raise Refused(f"ENOENT: {name}")
                self.seen = replace(self.seen, settings={**self.seen.settings, name: value})

    def _bridge(self, name: str) -> Link:
        found = self.seen.bridges[name]
        if found is None:
            raise Refused(f"ENODEV: {name}")
        return found

    def _set_bridge(self, bridge: Link) -> None:
        self.seen = replace(self.seen, bridges={**self.seen.bridges, bridge.name: bridge})

    def _add_route(self, address: Address, device: int) -> None:
        if address.device == device and address.prefix < 8 * len(address.address):
            metric = ON_LINK_METRIC[2 if len(address.address) == 4 else 10]
            added = on_link(device, address.address, address.prefix, metric)
            self.seen = replace(self.seen, routes=self.seen.routes | {added})
