"""Thousands that are there when the agent starts, and when it starts again."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from agent.demo.private_host import PrivateHost
from tests.harness import netns, observe
from tests.harness.expect import why_not_working
from tests.harness.remains import remains
from tests.harness.running import Agent
from tests.harness.waiting import eventually

_SAMPLE = 100
_EMPTIED = 300.0
_READY = 300.0


@dataclass
class Crowd:
    """How long it took until all were networked, and adopted after a death; and what was wrong."""

    networked_seconds: float = 0.0
    adopted_seconds: float = 0.0
    wrongs: list[str] = field(default_factory=list)


def gather(directory: Path, count: int) -> Crowd:
    """Start with so many, die, start again, and let all of them go."""
    crowd = Crowd()
    names = [f"n{number}" for number in range(count)]
    with PrivateHost() as host, contextlib.closing(Agent(host, directory)) as agent:
        netns.add_many(names)
        agent.start(ready=False)
        crowd.networked_seconds = agent.wait_event("ready", timeout=_READY)["ms"] / 1000
        before = _addresses(agent)
        crowd.wrongs += [f"{name} is not networked" for name in names if name not in before]
        crowd.wrongs += [] if len(set(before.values())) == len(before) else ["an address is held twice"]
        crowd.wrongs += [f"{name}: {why}" for name in names[::_SAMPLE] if (why := why_not_working(name))]
        agent.kill()
        mark = agent.mark()
        agent.start(ready=False)
        crowd.adopted_seconds = agent.wait_event("ready", timeout=_READY, since=mark)["ms"] / 1000
        crowd.wrongs += [] if _addresses(agent) == before else ["after its death addresses are others"]
        netns.delete_many(names)
        eventually(lambda: not agent.namespaces() and not observe.host_ends(), _EMPTIED, "all are gone")
        with contextlib.suppress(AssertionError):
            eventually(lambda: not remains(agent), _EMPTIED, "nothing is left")
        crowd.wrongs += [f"left over: {line}" for line in remains(agent)]
        crowd.wrongs += [f"logged: {record}" for record in agent.records if record["level"] not in ("info", "debug")]
    return crowd


def _addresses(agent: Agent) -> dict[str, str]:
    return {name: found["address"] for name, found in agent.namespaces().items() if found["state"] == "ready"}
