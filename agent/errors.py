"""The errors of vethd: each one's text is a single line that a user can act on."""

import errno
import os


class VethdError(Exception):
    """Base of all errors that vethd raises on purpose; ``str()`` is one user-ready line."""


class ConfigError(VethdError):
    """A config that cannot be used: names file, key and what is allowed."""


class HostError(VethdError):
    """The host cannot run vethd, or not now: says what is missing and what to do."""


class NoFreeAddress(VethdError):
    """A network has no address left to lease."""


class ForeignDevice(VethdError):
    """A device that vethd did not make bears a name that vethd needs."""


class NamespaceGone(VethdError):
    """The name no longer leads to the namespace that was looked at."""


class KernelError(VethdError):
    """The kernel refused a request.

    ``code`` is the positive errno (netlink(7)), ``detail`` the kernel's extended
    acknowledgement text, empty when there is none.
    """

    def __init__(self, what: str, code: int, detail: str = "") -> None:
        self.what = what
        self.code = code
        self.detail = detail
        name = errno.errorcode.get(code, str(code))
        kernel = detail or os.strerror(code)
        super().__init__(f"{what}: the kernel said {name} ({kernel})")
