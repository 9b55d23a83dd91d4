"""JSON files in the state directory: replaced in one step, set aside when they make no sense.

Losing one loses comfort, never truth: what is, is read from the kernel.
"""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

_Content = TypeVar("_Content")
# Many times what the largest networks with the longest names come to.
_MOST_BYTES: Final = 256 << 20
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def read(path: Path, parse: Callable[[object], _Content], empty: _Content) -> tuple[_Content, str]:
    """Return what the file holds and a remark, empty when all is well.

    ``parse`` raises ValueError, TypeError, KeyError or AttributeError for what makes no sense;
    the file is set aside with the suffix ``.damaged`` then, as is one that others can change.
    A missing file is ``empty``.
    """
    try:
        with open(path, encoding="utf-8", opener=_open_at_once) as file:
            found = os.fstat(file.fileno())
            if found.st_uid not in {0, os.geteuid()} or found.st_mode & _OTHERS_WRITE:
                return empty, _set_aside(path, "can be changed by others")
            if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES:
                return empty, _set_aside(path, "is damaged")
            return parse(json.load(file)), ""
    except FileNotFoundError:
        return empty, ""
    except OSError as error:
        return empty, f"{path}: cannot be read: {error.strerror}"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return empty, _set_aside(path, "is damaged")


def write(path: Path, content: object) -> None:
    """Replace the file, readable by its owner alone. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    # Whatever stands there, a link elsewhere say, is neither followed nor written to.
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            # Written at once: json.dump writes each number by itself.
            file.write(json.dumps(content))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        # Half a file would take the room that is missing.
        draft.unlink(missing_ok=True)
        raise


def _open_at_once(path: str, flags: int) -> int:
    # A FIFO in the file's place would keep the agent waiting for a writer.
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _set_aside(path: Path, why: str) -> str:
    damaged = path.with_suffix(f"{path.suffix}.damaged")
    try:
        path.replace(damaged)
    except OSError as error:
        return f"{path}: {why} and cannot be set aside: {error.strerror}"
    return f"{path}: {why}, set aside as {damaged}"
