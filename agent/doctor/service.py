"""Checks of the agent itself and of its configuration."""

from collections.abc import Iterator

from agent.doctor.facts import Facts
from agent.doctor.finding import Finding
from agent.export.views import WISH_NOT_TAKEN
from agent.kernel.privileges import NAMES as KEPT
from agent.kernel.privileges import names_of
from agent.sources.processes import UNFILTERED

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
        if not problem.startswith(WISH_NOT_TAKEN):
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


def processes(facts: Facts) -> Iterator[Finding]:
    """Whether the agent sees all that rules about processes ask for."""
    # None where no rule asks, and of an agent that does not tell.
    remark = (facts.agent.status or {}).get("process_source")
    if remark == "":
        yield Finding("process-source", "ok", "the kernel tells the agent of every process")
    elif remark == UNFILTERED:
        yield Finding("process-source", "info", remark)
    elif remark:
        yield Finding(
            "process-source",
            "warning",
            f"namespaces of processes may be found late, or never: {remark}",
            "give the agent what it lacks, or leave out the rules that are about processes",
        )


def wishes(facts: Facts) -> Iterator[Finding]:
    """Files of netns.d that cannot be used; of a running agent those that it has not taken."""
    status = facts.agent.status
    told = () if status is None else status["problems"]
    refused = [problem.removeprefix(WISH_NOT_TAKEN) for problem in told if problem.startswith(WISH_NOT_TAKEN)]
    for line in (*facts.wish_problems, *refused):
        yield Finding(
            "wish-file",
            "warning",
            f"not in force: {line}",
            "mend the file or remove it; a running agent reads it again at once",
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
