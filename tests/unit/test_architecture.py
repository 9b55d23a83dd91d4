"""The house rules that a machine can hold: who may import whom, what stays pure, how long a file may be."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "agent"
LONGEST_FILE = 350

# The floors of the house, from the top. A part may import what is on a lower floor, and what is in its own folder.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("app", "rehearsal", "down", "doctor", "demo"),
    ("export",),
    ("reconciler", "sources"),
    ("kernel", "state", "config", "notify"),
    ("core",),  # pure, so everything may ask it
    ("model", "errors"),
    ("__init__",),
)
IMPURE = {
    "asyncio",
    "os",
    "prometheus_client",
    "pyroute2",
    "random",
    "select",
    "socket",
    "structlog",
    "subprocess",
    "threading",
    "time",
}
# Only these folders may hold what speaks to the kernel.
KERNEL_ONLY = {
    "pyroute2": {"kernel", "doctor", "demo"},
    "nftables": {"kernel", "doctor"},
    "ctypes": {"kernel", "demo"},
}

FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in FILES}


def part_of(module: str) -> str:
    """``agent.kernel.links`` -> ``kernel``; ``agent`` itself -> ``__init__``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def floor_of(part: str) -> int:
    return next(floor for floor, parts in enumerate(FLOORS) if part in parts)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(tree: ast.AST, *, running: bool = False) -> Iterator[str]:
    """Every module that is imported, wherever the import stands; ``running`` leaves out what is for types alone."""
    for node in ast.iter_child_nodes(tree):
        if running and is_type_checking(node):
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in MODULES or f"{inner}.__init__" in MODULES else node.module
        else:
            yield from imports(node, running=running)


def imported(file: Path, *, running: bool = False) -> set[str]:
    return set(imports(ast.parse(file.read_text(encoding="utf-8")), running=running))


def test_every_part_has_its_floor() -> None:
    parts = {part_of(module) for module in MODULES}
    assert parts <= {part for floor in FLOORS for part in floor}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    here = part_of(module)
    for name in imported(MODULES[module]):
        there = part_of(name)
        if name.split(".")[0] == "agent" and there != here:
            assert floor_of(there) > floor_of(here), f"{module} imports {name}"


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) in ("core", "model", "errors")])
def test_the_core_is_pure(module: str) -> None:
    allowed = {"os"} if part_of(module) == "errors" else set()  # the names of the kernel's error codes
    roots = {name.split(".")[0] for name in imported(MODULES[module])}
    assert not roots & (IMPURE - allowed)
    assert roots <= set(sys.stdlib_module_names) | {"agent"}


@pytest.mark.parametrize("module", MODULES)
def test_only_the_kernel_folder_speaks_to_the_kernel(module: str) -> None:
    for name in imported(MODULES[module]):
        holders = KERNEL_ONLY.get(name.split(".")[0])
        assert holders is None or part_of(module) in holders, f"{module} imports {name}"


def test_no_module_imports_itself_by_a_round() -> None:
    graph = {
        module.removesuffix(".__init__"): {name for name in imported(file, running=True) if name.startswith("agent.")}
        for module, file in MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module in done:
            return
        for name in graph.get(module, ()):
            visit(name, (*path, module))
        done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("file", [*FILES, *sorted((ROOT / "tests").rglob("*.py"))], ids=lambda file: file.name)
def test_files_stay_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md"])
def test_tests_that_documents_name_are_there(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"tests/[\w/]+\.py", text))
    assert {name for name in named if not (ROOT / name).is_file()} == set()
