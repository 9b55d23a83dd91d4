"""Checks of the agent itself and of its configuration."""

from collections.abc import Iterator

from agent.doctor.facts import Facts
from agent.doctor.finding import Finding
from agent.kernel.privileges import NAMES as KEPT
from agent.kernel.privileges import names_of

WRITABLE_BY_OTHERS = 0o022


def agent(facts: Facts) -> Iterator[Finding]:
    """Whether it runs, and what it says of itself."""
    status = facts.agent.status
    if status is None:
        bridges = [network.bridge for network in facts.config.networks if facts.mtu(network.bridge) is not None]
        more = f"; what stands on {', '.join(bridges)} goes on working, but nobody looks after it" if bridges else ""
        yield Finding("agent", "warning", f"{facts.agent.problem}{more}", "systemctl start vethd, or `vethd run`")
        return
    if status["ready"]:
        yield Finding("agent", "ok", f"vethd {status['version']} runs as pid {status['pid']}")
    else:
        yield Finding("agent", "info", f"vethd {status['version']} is starting", "wait, then ask again")
    for problem in status["problems"]:
        yield Finding("agent-problem", "warning", problem, "`vethd list` and `vethd explain NAME` tell more")


def privileges(facts: Facts) -> Iterator[Finding]:
    """What the running agent may do to this host."""
    may = facts.privileges
    if may is None:
        return
    held = names_of(may.effective)
    surplus = [name for name in held if name not in KEPT.values()]
    if not surplus and may.no_new:
        yield Finding("agent-privileges", "ok", f"the agent may {', '.join(held)}; what it runs may no more")
        return
    more = f" and needs none of {', '.join(surplus)}" if surplus else ""
    yield Finding(
        "agent-privileges",
        "info",
        f"the agent has not given up what it does not need: it may {', '.join(held)}{more}",
        "`systemctl restart vethd`; if that does not help, see who started it",
    )


def config(facts: Facts) -> Iterator[Finding]:
    """Whether the config can be used, and by whom it can be changed."""
    file = facts.config_file
    if file.problem:
        yield Finding("config", "critical", file.problem, f"`vethd check-config {file.path}` until it says ok")
    elif file.exists:
        yield Finding("config", "ok", f"{file.path} can be used")
    else:
        yield Finding("config", "ok", f"there is no {file.path}: built-in defaults")
    if file.exists and (file.mode & WRITABLE_BY_OTHERS or file.owner != 0):
        yield Finding(
            "config-permissions",
            "warning",
            f"{file.path} can be changed by others than root (owner {file.owner}, mode {file.mode:04o})",
            f"chown root:root {file.path} && chmod 0644 {file.path}",
        )
