"""One TOML table, taken key by key, so that each thing that is wrong is told by its key."""

from collections.abc import Callable, Mapping
from typing import Self, TypeVar

from agent.core.identity import printable
from agent.errors import ConfigError

_Value = TypeVar("_Value")


class Table:
    """A table whose keys are taken one by one; what is left over is unknown.

    ``where`` stands before each error: the file, and for one of several tables its number.
    ``name`` is the table's dotted name in it, empty for the outermost.
    """

    def __init__(self, raw: Mapping[str, object], where: str, name: str = "") -> None:
        self._left = dict(raw)
        self._known: list[str] = []
        self._where = where
        self.name = name

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def table(self, key: str) -> Self:
        """Take a table, an empty one when it is missing. Raises ConfigError."""
        self._known.append(key)
        found = self._left.pop(key, {})
        if not isinstance(found, dict):
            raise self.error(key, "must be a table")
        return type(self)(found, self._where, self._path(key))

    def tables(self) -> list[Self]:
        """Take all that is left, which must be tables. Raises ConfigError."""
        return [self.table(key) for key in list(self._left)]

    def rows(self, key: str) -> list[Self]:
        """Take an array of tables, numbered from 1, an empty one when it is missing. Raises ConfigError."""
        self._known.append(key)
        found = self._left.pop(key, [])
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise self.error(key, f"must be a list of tables: [[{key}]]")
        return [type(self)(row, f"{self._where}: {key} {number}") for number, row in enumerate(found, 1)]

    def take(self, key: str, check: Callable[[object], _Value], default: _Value, allowed: str) -> _Value:
        """Take a value, checked; the default when it is missing.

        ``check`` raises ValueError or TypeError, ``allowed`` says what would do. Raises ConfigError.
        """
        self._known.append(key)
        if key not in self._left:
            return default
        value = self._left.pop(key)
        try:
            return check(value)
        except (ValueError, TypeError):
            raise self.error(key, f"{value!r} is not allowed: must be {allowed}") from None

    def refuse_the_rest(self) -> None:
        """Raise ConfigError when a key was not taken."""
        for key in self._left:
            raise self.error(key, f"unknown; known here: {', '.join(sorted(self._known))}")

    def error(self, key: str, message: str) -> ConfigError:
        """Return an error of a key, or of the table itself when ``key`` is empty."""
        return ConfigError(": ".join(part for part in (self._where, printable(self._path(key)), message) if part))

    def _path(self, key: str) -> str:
        return ".".join(part for part in (self.name, key) if part)
