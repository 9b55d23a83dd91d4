"""The command line as a contract: where options may stand, what is refused, what help shows."""

import pytest

from agent.cli.main import build_parser, main

COMMANDS = [
    "run",
    "status",
    "list",
    "wait",
    "exec",
    "new",
    "watch",
    "top",
    "explain",
    "doctor",
    "down",
    "check-config",
    "demo",
]
ARGUMENTS = {"wait": ["web"], "exec": ["web", "--", "ls"], "new": ["web"], "explain": ["web"], "check-config": ["file"]}


@pytest.mark.parametrize("command", COMMANDS)
def test_config_may_stand_before_or_after_the_command(command: str) -> None:
    more = ARGUMENTS.get(command, [])
    for line in (["--config", "F", command, *more], [command, "--config", "F", *more]):
        assert build_parser().parse_args(line).config == "F"
    assert not hasattr(build_parser().parse_args([command, *more]), "config")


def test_the_later_config_wins() -> None:
    assert build_parser().parse_args(["--config", "A", "list", "--config", "B"]).config == "B"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "example:" in shown
    assert f"vethd {command}" in shown.partition("example:")[2]


def test_the_general_help_names_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"    {command} " in shown or f"    {command}\n" in shown for command in COMMANDS)
    assert "4 agent not running" in shown


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["nonsense"],
        ["wait"],
        ["wait", "web", "--timeout", "soon"],
        ["wait", "web", "--timeout", "-1"],
        ["wait", "web", "--timeout", "nan"],
        ["wait", "web", "--timeout", "inf"],
        ["run", "--log-format", "xml"],
        ["list", "extra\x1b[2J"],
        ["exec"],
        ["exec", "web"],
        ["exec", "web", "--"],
        ["exec", "web", "ls"],
        ["exec", "--", "ls"],
        ["exec", "--", "-x", "ls"],
        ["exec", "--timeout", "soon", "web", "--", "ls"],
        ["exec", "web", "--rm", "--", "ls"],
        ["new"],
        ["new", "--", "-x", "ls"],
        ["new", "web", "--rm"],
        ["new", "web", "extra", "--", "ls"],
        ["new", "web", "--network"],
    ],
)
def test_bad_usage_is_one_line_and_exit_2(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(line)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.rstrip("\n").isprintable()
    assert "--help" in said


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("vethd ")


def test_a_name_may_begin_with_a_dash() -> None:
    assert build_parser().parse_args(["wait", "--timeout", "1", "--", "-x"]).name == "-x"


@pytest.mark.parametrize("command", ["exec", "new"])
@pytest.mark.parametrize(
    "program", [["ls"], ["sh", "-c", "x", "--", "--timeout"], ["--help"], ["--config", "F", "--rm"]]
)
def test_no_word_of_a_program_is_read(command: str, program: list[str]) -> None:
    for name in (["web"], ["--timeout", "5", "web"], ["web", "--timeout", "5"], ["--timeout=5", "--", "-x"]):
        found = build_parser().parse_args([command, *name, "--", *program])
        assert found.program == program
        assert found.name == ("-x" if "-x" in name else "web")
        assert found.timeout == (30.0 if name == ["web"] else 5.0)
        assert not hasattr(found, "config")


def test_a_namespace_may_be_made_without_a_program() -> None:
    for line in (["new", "web"], ["new", "web", "--"], ["new", "--", "-x"]):
        found = build_parser().parse_args(line)
        assert found.name == line[-1].replace("--", "web")
        assert (found.program, found.rm, found.network) == ([], False, None)
    found = build_parser().parse_args(["new", "--network", "ci", "web", "--rm", "--", "ls"])
    assert (found.program, found.rm, found.network) == (["ls"], True, "ci")
