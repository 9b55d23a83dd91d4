"""SIGKILL at any moment: whoever comes after finds out what was half done, and puts it right."""

import random
import threading
import time
from dataclasses import dataclass, field

from tests.soak.stage import Stage

_OPERATIONS = 12
_LATEST = 0.15


@dataclass
class Deaths:
    """What came of them: ``seconds`` until all was right again, each from the start of the next agent on."""

    seconds: list[float] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)


def die(stage: Stage, count: int, seed: int) -> Deaths:
    """Kill the agent so many times while namespaces come and go, and see what the next one makes of it."""
    chance = random.Random(seed)
    deaths = Deaths()
    for number in range(count):
        process = stage.agent.process
        assert process is not None
        killer = threading.Timer(chance.random() * _LATEST, process.kill)
        killer.start()
        stage.lives.live(chance.randint(1, _OPERATIONS))
        killer.join()
        stage.agent.wait_end()
        # Some come and go while nobody looks.
        stage.lives.live(chance.randint(0, _OPERATIONS // 3))
        begin = time.monotonic()
        stage.restart()
        stage.lives.settle()
        deaths.seconds.append(time.monotonic() - begin)
        deaths.wrongs += [f"after death {number}: {line}" for line in stage.wrongs()]
    return deaths
