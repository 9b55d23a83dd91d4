"""The story of `vethd demo`: the real agent in a private host, and what it promises, each point checked."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pyroute2 import IPRoute, NetlinkError

from agent.demo import internet, probe, uplink
from agent.demo.isolation import add_named, delete_named, inside, prepare_netns_dir
from agent.demo.private_host import PrivateHost
from agent.demo.process import AgentProcess
from agent.errors import VethdError

_GATEWAY4, _GATEWAY6 = "172.27.0.1", "fd00:7e74:1::1"
_DEVICE, _BRIDGE = "eth0", "vethd0"
_SERVICE_PORT = 8080
_TIMEOUT = 5.0
_IMPATIENCE = 0.1
_FORWARDING = ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding")


class _Untrue(Exception):
    """A promise was not kept; the text says which."""


def run_demo() -> int:
    """Tell the story on standard output; 0 if all of it was true, 1 otherwise."""
    begin = time.monotonic()
    _say(_paint("1", "A private host: an uplink, an internet beyond it, nothing of your own network."))
    try:
        with PrivateHost() as host:
            agent = AgentProcess(host, _write_config())
            try:
                _tell(agent)
            except (_Untrue, AssertionError, OSError, NetlinkError) as error:
                what = str(error).partition("\n")[0]
                _say("", f"{_paint('1;31', 'Not true')}: {what}", "The agent's last words:", agent.tail(30))
                return 1
            finally:
                agent.close()
    except VethdError as error:
        print(f"vethd: {error}", file=sys.stderr)
        return 1
    _say("", f"{_paint('1;32', 'All of it was true')}, in {time.monotonic() - begin:.1f} s; nothing is left of it.")
    return 0


def _tell(agent: AgentProcess) -> None:
    before = _traces()
    _true("the agent starts: vethd run", partial(_start, agent))

    _chapter("A namespace appears, and is networked. No tool but ip was told anything.")
    for name in ("web", "db"):
        _true(f"ip netns add {name}: it has an address and a default route", partial(_appear, name))
    for gateway in (_GATEWAY4, _GATEWAY6):
        _true(f"web pings the gateway {gateway}", partial(probe.icmp_echo, "web", gateway))
    _true("web opens a connection to db", _connect_neighbours)
    for beyond, host in ((uplink.BEYOND4, uplink.HOST4), (uplink.BEYOND6, uplink.HOST6)):
        _true(f"web pings {beyond}, beyond the NAT", partial(probe.icmp_echo, "web", beyond))
        _true(f"there its connections come from {host}", partial(_check_masqueraded, beyond, host))
    _run_command(agent, "list")

    _chapter("Damage is repaired.")
    _true("web's default route is deleted: it is back", _lose_route)
    internet_again = partial(probe.tcp_connect, "web", uplink.BEYOND4, internet.ECHO_PORT, _IMPATIENCE)
    neighbours_again = partial(_connect_neighbours, _IMPATIENCE)
    _true(
        "web's host end is deleted: web reaches the internet again",
        lambda: _lose_device(_host_end("web"), internet_again),
    )
    _true("the bridge is deleted: web and db reach each other again", lambda: _lose_device(_BRIDGE, neighbours_again))

    _chapter("A restart of the agent is not felt.")
    _restart(agent)

    _chapter("A namespace goes; then vethd goes.")
    _true("ip netns del web: its host end is gone", _disappear)
    _true("the agent stops", agent.stop)
    _run_command(agent, "down")
    left = sorted(_traces() ^ before)
    _check(not left, f"the host is not as it was: {', '.join(left)}")
    _true("the host is as it was before: devices, addresses, rules, forwarding", lambda: None)


def _write_config() -> Path:
    path = Path("/etc/vethd/vethd.toml")
    path.parent.mkdir(exist_ok=True)
    # All that the demo says is about the defaults, whatever the config of the machine is.
    path.write_text("")
    return path


def _start(agent: AgentProcess) -> None:
    agent.start()


def _appear(name: str) -> float:
    if shutil.which("ip"):
        subprocess.run(["ip", "netns", "add", name], check=True)
    else:
        prepare_netns_dir()
        add_named(name)
    took = probe.await_default_route(name)
    probe.await_default_route(name, v6=True)
    return took


def _disappear() -> float:
    device = _host_end("web")
    with probe.Changes(None) as changes:
        delete_named("web")
        return changes.until(lambda: device not in os.listdir("/sys/class/net"), _TIMEOUT, f"{device} is gone")


def _connect_neighbours(timeout: float = 1.0) -> float:
    address = _address("db")
    with probe.listen("db", address, _SERVICE_PORT):
        return probe.tcp_connect("web", address, _SERVICE_PORT, timeout)


def _check_masqueraded(beyond: str, host: str) -> None:
    source = probe.tcp_ask("web", beyond, internet.WHOAMI_PORT)
    _check(source == host, f"{beyond} sees web as {source}")


def _lose_route() -> float:
    with inside("web"), IPRoute() as ip:
        index = ip.link_lookup(ifname=_DEVICE)[0]
        begin = time.monotonic()
        ip.route("del", dst="default", gateway=_GATEWAY4, oif=index)
    probe.await_default_route("web")
    return time.monotonic() - begin


def _lose_device(name: str, again: Callable[[], float]) -> float:
    """Seconds from the order to delete a device of the host to the first success of `again`."""
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=name)[0]
        begin = time.monotonic()
        ip.link("del", index=index)
    with probe.Changes(None) as changes:
        changes.until(partial(_succeeds, again), _TIMEOUT, "it works again")
    return time.monotonic() - begin


def _succeeds(attempt: Callable[[], float]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


def _restart(agent: AgentProcess) -> None:
    address, device = _address("web"), _host_end("web")
    with probe.Heartbeat("web", uplink.BEYOND4, internet.ECHO_PORT) as stream:
        stream.await_beats(20)
        _true("the agent is stopped while web talks to the internet", agent.stop)
        stream.await_beats(20)
        _true("and started again", partial(_start, agent))
        stream.await_beats(20)
    same = (address, device) == (_address("web"), _host_end("web"))
    _check(same, "web has another address or device than before")
    _true(f"of {stream.beats} questions none was lost; the longest wait for an answer", lambda: stream.longest_gap)


def _address(name: str) -> str:
    with inside(name), IPRoute() as ip:
        index = ip.link_lookup(ifname=_DEVICE)[0]
        return str(ip.get_addr(index=index, family=socket.AF_INET)[0].get_attr("IFA_ADDRESS"))


def _host_end(name: str) -> str:
    """Told apart by its alias, as anyone can with `ip -d link`."""
    alias = f"vethd:{name}"
    for device in Path("/sys/class/net").iterdir():
        if (device / "ifalias").read_text().strip() == alias:
            return device.name
    raise _Untrue(f"there is no device with the alias {alias}")


def _traces() -> set[str]:
    """All of the host that vethd could have changed."""
    traces = {f"device {name}" for name in os.listdir("/sys/class/net")}
    with IPRoute() as ip:
        traces |= {f"address {address.get_attr('IFA_ADDRESS')}" for address in ip.get_addr()}
    traces |= {f"{path} = {Path(path).read_text().strip()}" for path in _FORWARDING}
    if shutil.which("nft"):
        tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
        traces |= set(tables.stdout.splitlines())
    return traces


def _run_command(agent: AgentProcess, *args: str) -> None:
    _say(f"  {_paint('2', '$')} vethd {' '.join(args)}")
    done = agent.cli(*args)
    _say(*(f"    {line}" for line in (done.stdout + done.stderr).splitlines()))
    _check(done.returncode == 0, f"vethd {' '.join(args)} ended with {done.returncode}")


def _true(promise: str, act: Callable[[], float | None]) -> None:
    """One line, with the milliseconds that `act` measured, or else with those that it took."""
    begin = time.monotonic()
    try:
        took = act()
    except (OSError, NetlinkError) as error:
        raise _Untrue(f"{promise}: {error}") from error
    milliseconds = (time.monotonic() - begin if took is None else took) * 1000
    _say(f"  {_paint('32', '✓')} {promise} {_paint('2', f'{milliseconds:.1f} ms')}")


def _check(true: bool, what: str) -> None:
    if not true:
        raise _Untrue(what)


def _chapter(title: str) -> None:
    _say("", _paint("1", title))


def _say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)


def _paint(colour: str, text: str) -> str:
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"
