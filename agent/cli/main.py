"""The ``vethd`` command: its arguments, and which function carries each out."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from agent import __version__
from agent.cli import ask, inside, local, make
from agent.cli.client import DEFAULT_CONFIG, AgentNotRunning
from agent.cli.exits import AGENT_NOT_RUNNING, BAD_USAGE, FAILED, tell
from agent.cli.render import harmless
from agent.errors import ConfigError, VethdError

EPILOG = """\
exit codes: 0 done, 1 failed, 2 bad usage or bad config, 3 left alone by policy, 4 agent not running

example:
  vethd run &
  ip netns add web && vethd exec web -- ping 172.27.0.1
"""

LONGEST_WAIT = 86_400  # what the agent takes
SHORTEST_INTERVAL = 0.1
SEPARATOR = "--"
SORTS = ("use", "receive", "transmit", "packets", "connections", "name", "network")
Command = Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    takes_program = False
    needs_program = False

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse, but what stands behind NAME and ``--`` is another program's, and no word of it is read."""
        if not self.takes_program or args is None:
            return super().parse_known_args(args, namespace)
        words = list(args)
        mark = words.index(SEPARATOR) if SEPARATOR in words else len(words)
        found, unknown = super().parse_known_args(words[:mark], namespace)
        found.program = words[mark + 1 :]
        if found.name is None and found.program:
            # This -- only ended the options, as it must before a name that begins with a dash.
            found.name, *found.program = found.program
            if found.program and found.program.pop(0) != SEPARATOR:
                self.error(f"{SEPARATOR} must stand between NAME and PROGRAM")
        if found.name is None:
            self.error("NAME is missing")
        if not found.program and (self.needs_program or getattr(found, "rm", False)):
            self.error(f"PROGRAM is missing: it stands behind {SEPARATOR}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_USAGE, f"{self.prog}: {harmless(message)}; see `{self.prog} --help`\n")


def build_parser() -> _Parser:
    """The whole command line."""
    everywhere = _Parser(add_help=False)
    everywhere.add_argument(
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,  # a default here would undo a --config given before the command
        help=f"configuration (else $VETHD_CONFIG, then {DEFAULT_CONFIG}, then built-in defaults)",
    )
    parser = _Parser(
        prog="vethd",
        parents=[everywhere],
        description="Networks every named network namespace of this host, and keeps it networked.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vethd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, does: Command, summary: str, example: str, more: str = "", json: bool = False) -> _Parser:
        made = commands.add_parser(
            name,
            parents=[everywhere],
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}. {more}".rstrip(),
            epilog=f"example:\n  {example}\n",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if json:
            made.add_argument("--json", action="store_true", help="print JSON")
        made.set_defaults(does=does)
        return made

    run = command(
        "run",
        local.run,
        "run the agent in the foreground",
        "vethd run --config /etc/vethd/vethd.toml",
        "SIGHUP reloads the configuration; SIGTERM stops the agent and leaves the network up.",
    )
    run.add_argument(
        "--dry-run", action="store_true", help="tell what would be done to this host now, do nothing, and end"
    )
    run.add_argument(
        "--log-format",
        choices=["auto", "console", "json"],
        default="auto",
        help="auto: coloured lines on a terminal, JSON lines otherwise",
    )

    status = command("status", ask.status, "show the agent, or one namespace", "vethd status web", json=True)
    status.add_argument("name", metavar="NAME", nargs="?", help="a namespace")

    command("list", ask.list_namespaces, "list the namespaces", "vethd list --json", json=True)

    wait = command(
        "wait",
        ask.wait,
        "wait until a namespace is networked",
        "ip netns add web && vethd wait web --timeout 5",
        "Exit codes: 0 it is, 1 not in time or failed, 3 left alone by policy.",
    )
    wait.add_argument("name", metavar="NAME", help="a namespace; it may appear later")
    _add_timeout(wait)

    execute = command(
        "exec",
        inside.execute,
        "run a program in a namespace, once that is networked",
        "vethd exec web -- ping -c 1 172.27.0.1",
        "As `ip netns exec`: with its own /sys, and the files of /etc/netns/NAME over those in /etc. Its exit code "
        "is the program's; before that, those of wait, 126 if the program cannot be run, 127 if there is none.",
    )
    execute.usage = "vethd exec [--timeout S] NAME -- PROGRAM [ARGUMENT ...]"
    execute.takes_program = True
    execute.needs_program = True
    execute.add_argument("name", metavar="NAME", nargs="?", help="a namespace; it may appear later")
    _add_timeout(execute)

    new = command(
        "new",
        make.new,
        "make a named namespace, and wait until it is networked",
        "vethd new ci --rm -- make check",
        "Prints its addresses; with a program, runs that in it, as exec does. What fails leaves nothing behind.",
    )
    new.usage = "vethd new [--network N] [--timeout S] NAME [[--rm] -- PROGRAM [ARGUMENT ...]]"
    new.takes_program = True
    new.add_argument("name", metavar="NAME", nargs="?", help="its name, in the first of discovery.directories")
    new.add_argument("--network", metavar="N", help="the network it is to be in (default: that which policy chooses)")
    new.add_argument("--rm", action="store_true", help="remove it when the program has ended")
    _add_timeout(new)

    command("watch", ask.watch, "show events as they happen", "vethd watch --json | jq .name", json=True)

    top = command(
        "top",
        ask.top,
        "show what each namespace receives and sends, live",
        "vethd top --sort transmit",
        "On a terminal keys sort, which its last line names, and q ends it.",
        json=True,
    )
    top.add_argument("--sort", choices=SORTS, default="use", help="biggest first; use: both directions (default: use)")
    top.add_argument("--interval", metavar="S", type=_interval, default=1.0, help="seconds between looks (default: 1)")
    top.add_argument("--once", action="store_true", help="one table, of one interval, and end")

    explain = command(
        "explain",
        ask.explain,
        "tell why a namespace is or is not networked, and what was done to it",
        "vethd explain web",
        json=True,
    )
    explain.add_argument("name", metavar="NAME", help="a namespace, also one that was removed a short while ago")

    command(
        "doctor",
        local.doctor,
        "check this host and the agent, and say what to do",
        "vethd doctor",
        "Changes nothing. Exit code 0 if there is nothing to do, 1 otherwise.",
        json=True,
    )
    command(
        "down",
        local.down,
        "remove every trace of vethd from this host",
        "systemctl stop vethd && vethd down",
        "The agent must be stopped. Namespaces stay, without their network.",
    )
    check = command(
        "check-config", local.check_config, "check a configuration file", "vethd check-config /etc/vethd/vethd.toml"
    )
    check.add_argument("file", metavar="FILE")
    command("demo", local.demo, "see it work in a private copy of a host, touching nothing outside", "vethd demo")
    return parser


def _add_timeout(command: argparse.ArgumentParser) -> None:
    command.add_argument("--timeout", metavar="S", type=_seconds, default=30.0, help="seconds to wait (default: 30)")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to {LONGEST_WAIT}")
    return seconds


def _interval(text: str) -> float:
    seconds = _seconds(text)
    if seconds < SHORTEST_INTERVAL:
        raise argparse.ArgumentTypeError(f"{text!r} is below {SHORTEST_INTERVAL} seconds")
    return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that is not UTF-8 shows escapes instead of ending the program.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    options = build_parser().parse_args(arguments)
    try:
        code = options.does(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # `vethd list | head`: the reader has enough. Python flushes once more at exit, into nowhere then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return FAILED
    except ConfigError as error:
        return tell(error, BAD_USAGE)
    except AgentNotRunning as error:
        return tell(error, AGENT_NOT_RUNNING)
    except VethdError as error:
        return tell(error)
    return int(code)
