"""The commands that need no running agent: they are the agent, or work on the host or a file themselves."""

import argparse
import gc
import json
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, cast

from agent.cli import render
from agent.cli.client import AgentNotRunning, Client, Refused
from agent.cli.exits import DONE, FAILED
from agent.errors import ConfigError

_COLLECT_AFTER = 20_000

if TYPE_CHECKING:
    from pathlib import Path

    from agent.config import Config
    from agent.doctor import Agent, Finding


def run(options: argparse.Namespace) -> int:
    """``vethd run``: until SIGTERM or SIGINT; with ``--dry-run`` only tells what it would do."""
    if options.dry_run:
        from agent.rehearsal import rehearse

        for line in rehearse(config_of(options)):
            print(render.harmless(line))
        return DONE
    _spare_what_no_agent_needs()
    # Of objects that refer to each other in circles there are few; looking for them takes long with thousands of
    # names, and while libraries load.
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])
    from agent import app

    return app.run(config_of(options), options.log_format)


def down(options: argparse.Namespace) -> int:
    """``vethd down``: 1 while an agent runs."""
    from agent.down import take_down

    for line in take_down(config_of(options)) or ["nothing of vethd is on this host"]:
        print(render.harmless(line))
    return DONE


def check_config(options: argparse.Namespace) -> int:
    """``vethd check-config FILE``: 2 when it cannot be used."""
    from pathlib import Path

    from agent import config

    config.load(Path(options.file))
    print(f"{render.printable(options.file)}: ok")
    return DONE


def demo(_: argparse.Namespace) -> int:
    """``vethd demo``."""
    from agent.demo import story

    return story.run_demo()


def doctor(options: argparse.Namespace) -> int:
    """``vethd doctor``: 1 when there is something to do."""
    from dataclasses import asdict

    from agent import config
    from agent.doctor import examine
    from agent.doctor.gather import config_file, gather

    path = _path(options)
    try:
        loaded, problem = config.load(path), ""
    except ConfigError as error:
        loaded, problem = config.load(None), str(error)
    file = config_file(str(path or config.DEFAULT_PATH), problem)
    found = examine(gather(loaded, file, _agent(str(loaded.socket))))
    if options.json:
        print(json.dumps({"findings": [asdict(finding) for finding in found]}, indent=2))
    else:
        print("\n".join(line for finding in found for line in _about(finding)))
    return FAILED if any(finding.needs_action for finding in found) else DONE


def config_of(options: argparse.Namespace) -> "Config":
    """The config that the command line names, read as the agent reads it. Raises ConfigError."""
    from agent import config

    return config.load(_path(options))


def _path(options: argparse.Namespace) -> "Path | None":
    """The file to read, None for the built-in defaults."""
    from pathlib import Path

    from agent import config

    named: str | None = getattr(options, "config", None)
    return config.locate(None if named is None else Path(named))


def _agent(socket: str) -> "Agent":
    from agent.doctor import Agent

    try:
        return Agent(Client(socket).get("/v1/status"), "")
    except (AgentNotRunning, Refused) as error:
        return Agent(None, str(error))


def _about(finding: "Finding") -> list[str]:
    colour = render.STATE_COLOURS[finding.severity]
    lines = [f"{render.coloured(f'{finding.severity:<8}', colour)}  {finding.id}: {render.harmless(finding.message)}"]
    if finding.fix:
        lines.append(f"          do: {render.harmless(finding.fix)}")
    return lines


def _spare_what_no_agent_needs() -> None:
    """Keep libraries from loading, for their own sake, what takes a tenth of a second of each start."""
    # structlog would draw tracebacks by it.
    sys.modules["rich"] = cast(ModuleType, None)
    # aiohttp reads the host's certificates, and an agent speaks to nobody by TLS.
    os.environ["SSL_CERT_FILE"] = os.devnull
