"""Everything at once: namespaces come and go, the agent dies, and others have their hands on what it keeps."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.harness.expect import eventually_works
from tests.soak import drift
from tests.soak.stage import STEADY, Stage

_LOAD = 40
_VICTIMS = 3
_HEALED = 10.0


@dataclass
class Storm:
    """What was done to it, how often, and what was wrong afterwards; packets lost of those that nobody touched."""

    deeds: Counter[str] = field(default_factory=Counter)
    wrongs: list[str] = field(default_factory=list)
    lost: int = 0


def rage(stage: Stage, seed: int, goes_on: Callable[[], bool]) -> Storm:
    """One round after the other, for as long as ``goes_on`` says."""
    chance, storm = random.Random(seed), Storm()
    while goes_on():
        if chance.random() < 0.5:
            _on_some(stage, chance, storm)
        else:
            with stage.silence():
                _on_all(stage, chance, storm)
    return storm


def _on_some(stage: Stage, chance: random.Random, storm: Storm) -> None:
    """Damage to a few, and perhaps a death: the others lose not one packet."""
    before = stage.lost()
    stage.lives.settle()
    victims = chance.sample(stage.lives.names, min(_VICTIMS, len(stage.lives.names)))
    commands = [command for name in victims for command in _some(chance, drift.of_one(name), storm)]
    _strike(stage, chance, storm, commands)
    storm.wrongs += [f"{name} does not heal: {why}" for name in victims if (why := _why_not_healed(stage, name))]
    storm.lost += stage.lost() - before


def _on_all(stage: Stage, chance: random.Random, storm: Storm) -> None:
    """Damage to the host's side, to a steady one, and perhaps a death."""
    commands = [*_some(chance, drift.HOST, storm), *_some(chance, drift.of_one(chance.choice(STEADY)), storm)]
    chance.shuffle(commands)
    _strike(stage, chance, storm, commands)
    storm.wrongs += [f"{name} does not heal: {why}" for name in STEADY if (why := _why_not_healed(stage, name))]


def _some(chance: random.Random, damages: Mapping[str, str], storm: Storm) -> list[str]:
    chosen = chance.sample(list(damages), chance.randint(1, 4))
    storm.deeds.update(chosen)
    return [damages[what] for what in chosen]


def _strike(stage: Stage, chance: random.Random, storm: Storm, commands: list[str]) -> None:
    load = threading.Thread(target=stage.lives.live, args=(_LOAD,))
    load.start()
    process = stage.agent.process
    assert process is not None
    dies = chance.random() < 0.4
    place = chance.randint(0, len(commands))
    drift.damage(*commands[:place])
    if dies:
        storm.deeds["SIGKILL"] += 1
        process.kill()
        stage.agent.wait_end()
    drift.damage(*commands[place:])
    if dies:
        stage.restart()
    load.join()
    storm.wrongs += stage.wrongs()


def _why_not_healed(stage: Stage, name: str) -> str:
    """Empty for one that works, or that is not there any more."""
    if name not in (*STEADY, *stage.lives.names):
        return ""
    try:
        eventually_works(name, _HEALED)
    except AssertionError as error:
        return str(error)
    return ""
