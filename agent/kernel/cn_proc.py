"""Numbers of the process connector, and where things stand in its messages.

Source: include/uapi/linux/connector.h, include/uapi/linux/cn_proc.h.
"""

import struct
from typing import Final

NETLINK_CONNECTOR: Final = 11
CN_IDX_PROC: Final = 1
CN_VAL_PROC: Final = 1
LISTEN: Final = 1
IGNORE: Final = 2

NONE: Final = 0x0
FORK: Final = 0x1
EXEC: Final = 0x2
UID: Final = 0x4
GID: Final = 0x40
SID: Final = 0x80
COMM: Final = 0x200

CN_MSG: Final = struct.Struct("=IIIIHH")
"""struct cn_msg: idx, val, seq, ack, length of what follows, flags."""

# Offsets from the start of the message: struct nlmsghdr, struct cn_msg, struct proc_event.
# TGID is the process that did something, which for FORK is the parent.
WHAT: Final = 16 + CN_MSG.size
PID: Final = WHAT + 16
TGID: Final = WHAT + 20
CHILD_PID: Final = WHAT + 24
CHILD_TGID: Final = WHAT + 28
