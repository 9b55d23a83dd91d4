"""What the doctor says: one finding a check."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "info", "warning", "critical"]
"""critical: namespaces are not networked, or not as promised. warning: they will not be, or something is unsafe."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``id`` is stable (the README's troubleshooting is sorted by it); ``fix`` is empty when there is nothing to do."""

    id: str
    severity: Severity
    message: str
    fix: str = ""

    @property
    def needs_action(self) -> bool:
        """Whether the doctor's exit code tells of it."""
        return self.severity in ("warning", "critical")
