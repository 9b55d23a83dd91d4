"""What code that runs as root among strangers must not do: no shell, nothing that turns bytes into code."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "agent"
FILES = sorted(PACKAGE.rglob("*.py"))

BUILT_IN = {"eval", "exec", "compile", "__import__"}
# Whole modules, and single names of others.
MODULES = {"code", "codeop", "commands", "dill", "cloudpickle", "jsonpickle", "marshal", "pickle", "pty", "shelve"}
NAMES = {
    "asyncio.create_subprocess_shell",
    "os.popen",
    "os.system",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "yaml.full_load",
    "yaml.load",
    "yaml.unsafe_load",
}
SHELLS = {"ash", "bash", "dash", "ksh", "sh", "zsh"}


def forbidden(source: str) -> list[str]:
    """Return what a file does that it must not, each with its line."""
    tree = ast.parse(source)
    aliases = dict(_aliases(tree))
    return [f"{line}: {what}" for node in ast.walk(tree) for line, what in _faults(node, aliases)]


def _aliases(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Names that imports give to what: ``from os import system as s`` -> ``s``, ``os.system``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((name.asname, name.name) for name in node.names if name.asname)
        elif isinstance(node, ast.ImportFrom):
            yield from ((name.asname or name.name, f"{node.module}.{name.name}") for name in node.names)


def _faults(node: ast.AST, aliases: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    match node:
        case ast.Import():
            yield from ((node.lineno, name.name) for name in node.names if name.name.split(".")[0] in MODULES)
        case ast.ImportFrom(module=str(module)):
            found = {module.split(".")[0], *(f"{module}.{name.name}" for name in node.names)} & (MODULES | NAMES)
            yield from ((node.lineno, name) for name in found)
        case ast.Attribute() if _dotted(node, aliases) in NAMES:
            yield node.lineno, _dotted(node, aliases)
        case ast.Name(id=name) if name in BUILT_IN:
            yield node.lineno, name
        case ast.Call(keywords=keywords):
            for keyword in keywords:
                is_off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg == "shell" and not is_off:
                    yield node.lineno, "shell="
        case (
            ast.List(elts=[ast.Constant(value=str(program)), *_])
            | ast.Tuple(elts=[ast.Constant(value=str(program)), *_])
        ) if program.rpartition("/")[2] in SHELLS:
            yield node.lineno, f"a command of {program}"


def _dotted(node: ast.AST, aliases: Mapping[str, str]) -> str:
    match node:
        case ast.Attribute(value=value, attr=name):
            return f"{_dotted(value, aliases)}.{name}"
        case ast.Name(id=name):
            return aliases.get(name, name)
    return ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_shell_and_nothing_that_makes_code_of_data(file: Path) -> None:
    assert forbidden(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "exec(text)",
        "run = eval",
        "compile(text, '', 'exec')",
        "__import__(name)",
        "import pickle",
        "import marshal as m",
        "from pickle import loads",
        "from shelve import open as o",
        "import os\nos.system('true')",
        "import os as o\no.popen('true')",
        "from os import system",
        "import subprocess as s\ns.run('true', shell=True)",
        "import subprocess\nsubprocess.run('true', shell=how)",
        "from subprocess import getoutput",
        "import asyncio\nasyncio.create_subprocess_shell('true')",
        "import yaml\nyaml.load(text)",
        "import subprocess\nsubprocess.run(['/bin/sh', '-c', text])",
        "import os\nos.execvp('sh', ('sh', '-c', text))",
    ],
)
def test_each_of_them_is_found(source: str) -> None:
    assert forbidden(source)


@pytest.mark.parametrize(
    "source",
    [
        "import re\nre.compile('a')",
        "import subprocess\nsubprocess.run(['ip', 'link'], shell=False)",
        "import tomllib\ntomllib.loads('')",
        "kernel.exec()",
    ],
)
def test_what_only_looks_like_it_is_not(source: str) -> None:
    assert forbidden(source) == []
