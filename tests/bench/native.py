"""The programs in C: what a language or a library would cost is not to be in their figures."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_SOURCES = Path(__file__).parent / "native"
_FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]


@dataclass(frozen=True, slots=True)
class Native:
    """Paths of the programs; None, and `why_not`, where they cannot be built."""

    floor: Path | None = None
    connects: Path | None = None
    why_not: str = ""

    @classmethod
    def build(cls, directory: Path) -> Self:
        compiler = os.environ.get("CC") or "cc"
        if shutil.which(compiler) is None:
            return cls(why_not=f"there is no C compiler {compiler}")
        try:
            return cls(_compile(compiler, "floor", directory), _compile(compiler, "connects", directory))
        except subprocess.CalledProcessError as failure:
            told = " ".join(failure.stderr.split())
            return cls(why_not=f"{compiler} failed: {told}")


def _compile(compiler: str, name: str, directory: Path) -> Path:
    program = directory / name
    command = [compiler, *_FLAGS, "-o", str(program), str(_SOURCES / f"{name}.c")]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return program
