"""Everything is done from within the process: no other program is ever started."""

import re
from pathlib import Path

from agent.demo.isolation import add_named, delete_named
from tests.conftest import StartAgent
from tests.harness import netns, observe
from tests.harness.expect import eventually_works, host_end
from tests.harness.waiting import eventually


def test_no_program_is_started_while_namespaces_come_and_go(start_agent: StartAgent, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    agent = start_agent(start=False)
    agent.start(prefix=("strace", "-D", "-f", "-qq", "-e", "trace=execve,execveat", "-o", str(trace)))
    names = [f"n{number}" for number in range(50)]
    netns.add_many(names)
    for name in names:
        agent.wait_ready(name)
    observe.run("ip", "link", "del", host_end("n0")["ifname"])
    observe.run("nft", "flush", "ruleset")
    observe.set_sysctl("net/ipv4/ip_forward", "0")
    eventually_works("n0")
    for name in names:
        delete_named(name)
        add_named(name)
    for name in names:
        agent.wait_ready(name)
    netns.delete_many(names)
    eventually(lambda: not observe.host_ends(), 5, "all is taken down")
    agent.stop()
    started = re.findall(r'execve(?:at)?\((?:\w+, )?"([^"]*)".*= 0$', trace.read_text(), re.MULTILINE)
    own, *others = [Path(program).name for program in started]
    assert own.startswith("python")
    # Python's ctypes.util looks for a library by it, while modules are loaded and not later.
    assert others in ([], ["ldconfig"])
