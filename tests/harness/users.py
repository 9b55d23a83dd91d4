"""Being somebody else for a moment: by the effective ids of this process, all its threads (credentials(7))."""

import contextlib
import os
from collections.abc import Iterator

NOBODY = 65534


@contextlib.contextmanager
def user(uid: int = NOBODY, gid: int = NOBODY, groups: tuple[int, ...] = ()) -> Iterator[None]:
    """Act as a user without any privilege for the length of the block, which should be short."""
    before = os.getgroups(), os.getegid(), os.geteuid()
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before[2])
        os.setegid(before[1])
        os.setgroups(before[0])
