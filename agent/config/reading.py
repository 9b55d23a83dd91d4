"""Reading TOML that tells root what to do: only where nobody else can change it."""

import os
import stat
import tomllib
from pathlib import Path
from typing import Final

from agent.core.identity import printable
from agent.errors import ConfigError

_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def read_toml(path: Path) -> dict[str, object]:
    """Read a file that nobody else can change, nor replace.

    Raises ConfigError: one line that names the file.
    """
    where = printable(str(path))
    try:
        with path.open("rb") as file:
            # What was opened is judged, not what has come to bear its name meanwhile.
            refuse_if_others_write(path, os.fstat(file.fileno()))
            for directory in {path.parent, path.resolve().parent}:
                refuse_if_others_replace(path, directory)
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        # Of ValueError, too: no UTF-8, and a number of thousands of digits.
        raise ConfigError(f"{where}: is no valid TOML: {error}") from error


def refuse_if_others_write(path: Path, found: os.stat_result) -> None:
    """Raise ConfigError when others than root and the agent's own user can change a file or directory."""
    where = printable(str(path))
    if found.st_uid not in _trusted_owners():
        raise ConfigError(f"{where}: belongs to user {found.st_uid}, who can change it: chown root {where}")
    if found.st_mode & _OTHERS_WRITE:
        mode = stat.S_IMODE(found.st_mode)
        raise ConfigError(f"{where}: others than its owner can write to it (mode {mode:04o}): chmod go-w {where}")


def refuse_if_others_replace(path: Path, directory: Path) -> None:
    """Raise ConfigError when others can put something else in a path's place. Raises OSError."""
    found = directory.stat()
    # With the sticky bit, as on /tmp, only its owner can replace a file.
    if found.st_mode & stat.S_ISVTX and found.st_uid in _trusted_owners():
        return
    try:
        refuse_if_others_write(directory, found)
    except ConfigError as error:
        raise ConfigError(f"{printable(str(path))}: can be replaced by others: {error}") from error


def _trusted_owners() -> set[int]:
    # Whoever owns vethd's code is obeyed anyway: so a config runs from a user's checkout, by sudo.
    return {0, os.geteuid(), os.stat(__file__).st_uid}
