"""Checks of the host itself: rights, mounts, kernel switches."""

from collections.abc import Iterator

from agent.doctor.facts import Facts
from agent.doctor.finding import Finding

# capabilities(7). NET_BROADCAST is what NETLINK_LISTEN_ALL_NSID takes (netlink(7)).
CAPABILITIES = {"CAP_NET_BROADCAST": 11, "CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
CONNTRACK_WARNING = 0.75
CONNTRACK_CRITICAL = 0.95
ACCEPT_RA_UNLESS_FORWARDING = 1


def rights(facts: Facts) -> Iterator[Finding]:
    """Root, and what root may be without in a container."""
    missing = [name for name, bit in CAPABILITIES.items() if not facts.capabilities >> bit & 1]
    if facts.uid != 0:
        yield Finding(
            "not-root", "critical", "this is not root: the agent cannot work, the doctor sees little", "become root"
        )
    elif missing:
        names = ", ".join(missing)
        yield Finding(
            "capabilities", "critical", f"root without {names}", f"give this container or service {names}, or leave it"
        )
    else:
        yield Finding("rights", "ok", "root, with all capabilities that this takes")


def mounts(facts: Facts) -> Iterator[Finding]:
    """Whether mounts that others make (``ip netns add`` is one) reach the agent."""
    for directory in map(str, facts.config.directories):
        if facts.shares_mounts:
            yield Finding("mount-propagation", "ok", f"the agent's {directory} is the host's own")
        elif facts.mounts is None:
            yield Finding("mount-propagation", "info", "the agent's mounts may not be read by this user")
        elif propagates(facts.mounts, directory):
            yield Finding("mount-propagation", "ok", f"mounts made in {directory} reach the agent")
        else:
            yield Finding(
                "mount-propagation",
                "critical",
                f"the mount that holds {directory} is private: namespaces made outside stay empty files for the agent",
                "run the agent without PrivateMounts=/`unshare --mount`, or with MountFlags=slave",
            )
    for name in facts.dead_names:
        yield Finding(
            "dead-name",
            "info",
            f"{name} is an empty file, no namespace: its maker died half-way",
            "remove it with `ip netns del`",
        )


def propagates(mountinfo: str, directory: str) -> bool:
    """Whether the mount that ``directory`` lies on receives others' mounts: proc_pid_mountinfo(5), optional fields."""
    best, receives = "", False
    for line in mountinfo.splitlines():
        fields = line.split()
        point, optional = fields[4], fields[6 : fields.index("-")]
        if _holds(point, directory) and len(point) >= len(best):
            best, receives = point, any(field.startswith(("shared:", "master:")) for field in optional)
    return receives


def _holds(point: str, directory: str) -> bool:
    return directory == point or directory.startswith(point.rstrip("/") + "/")


def forwarding(facts: Facts) -> Iterator[Finding]:
    """The kernel's switches for passing packets on."""
    wanted = {4: "net.ipv4.ip_forward"}
    if any(network.subnet6 for network in facts.config.networks):
        wanted[6] = "net.ipv6.conf.all.forwarding"
    for version, name in wanted.items():
        value = facts.sysctls.get(name)
        if value:
            yield Finding(f"forwarding{version}", "ok", f"{name} = {value}")
        elif facts.agent.status is None:
            yield Finding(f"forwarding{version}", "info", f"{name} is off; the agent turns it on when it starts")
        else:
            yield Finding(
                f"forwarding{version}",
                "critical",
                f"{name} is off although the agent runs: nothing leaves the host",
                f"sysctl -w {name}=1, and see who resets it (`grep -r {name.split('.')[-1]} /etc/sysctl*`)",
            )


def router_advertisements(facts: Facts) -> Iterator[Finding]:
    """A forwarding kernel ignores router advertisements unless told otherwise, and the host loses its IPv6 route."""
    device = facts.uplink(4)
    key = f"net.ipv6.conf.{device}.accept_ra"
    if device is None or not facts.sysctls.get("net.ipv6.conf.all.forwarding"):
        return
    if facts.uplink(6) is None and facts.sysctls.get(key) == ACCEPT_RA_UNLESS_FORWARDING:
        yield Finding(
            "accept-ra",
            "info",
            f"{device} takes no IPv6 default route from router advertisements while the host forwards IPv6",
            f"if this host had one: sysctl -w {key}=2",
        )


def conntrack(facts: Facts) -> Iterator[Finding]:
    """How full the table of tracked connections is; when it is full, new connections of the whole host are dropped."""
    count, limit = (facts.sysctls.get(f"net.netfilter.nf_conntrack_{what}") for what in ("count", "max"))
    if count is None or not limit:
        return
    message = f"{count} of {limit} tracked connections ({count / limit:.0%})"
    if count < CONNTRACK_WARNING * limit:
        yield Finding("conntrack", "ok", message)
        return
    yield Finding(
        "conntrack",
        "critical" if count >= CONNTRACK_CRITICAL * limit else "warning",
        message,
        f"sysctl -w net.netfilter.nf_conntrack_max={2 * limit}, and see who opens them: `conntrack -L`",
    )
