"""`vethd demo`: what a newcomer runs first, on a machine of which it changes nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.kernel import faults
from tests.harness import machine

COMMAND = [sys.executable, "-m", "agent", "demo"]
CHAPTERS = [
    "A private host: ",
    "A namespace appears, ",
    "Damage is repaired.",
    "A restart of the agent is not felt.",
    "A namespace goes; ",
    "All of it was true, ",
]


@pytest.mark.parametrize("path", [os.environ["PATH"], ""], ids=["", "without ip and nft"])
def test_all_of_it_is_true_and_the_machine_as_before(path: str) -> None:
    before = machine.snapshot()
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    told = done.stdout.splitlines()
    heads = [line for line in told if line and not line.startswith(" ")]
    assert [head.startswith(chapter) for head, chapter in zip(heads, CHAPTERS, strict=True)] == [True] * len(CHAPTERS)
    kept = [line for line in told if line.startswith("  ✓ ")]
    assert "questions none was lost" in kept[-4]
    assert "the host is as it was before" in kept[-1]
    assert machine.differences(before, machine.snapshot()) == []


def test_what_is_not_true_is_told_with_the_last_words_of_the_agent() -> None:
    env = {**os.environ, faults.KILL_AFTER: "5"}
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 1
    heads = [line for line in done.stdout.splitlines() if line and not line.startswith(" ")]
    assert heads[2].startswith("Not true: ip netns add web: ")
    assert heads[3] == "The agent's last words:"
    assert '"event":"ready"' in done.stdout.replace(" ", "")
    assert not Path("/run/netns/web").exists()
