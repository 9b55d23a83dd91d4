"""Numbers and layouts of rtnetlink.

Source: rtnetlink(7), include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour,veth,ipv6}.h.
"""

import struct
from typing import Final

RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_GETADDR: Final = 22
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_GETROUTE: Final = 26
RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29
RTM_GETNEIGH: Final = 30
RTM_NEWNSID: Final = 88

AF_UNSPEC: Final = 0
AF_INET: Final = 2
AF_INET6: Final = 10

IFF_UP: Final = 1
IFF_NOARP: Final = 0x80

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_OPERSTATE, IFLA_LINKINFO, IFLA_IFALIAS, IFLA_STATS64 = 16, 18, 20, 23
IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD, IFLA_LINK_NETNSID, IFLA_TARGET_NETNSID = 26, 27, 28, 37, 46
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_BRPORT_STATE, IFLA_BRPORT_ISOLATED = 1, 33
IFLA_INET6_CONF, IFLA_INET6_ADDR_GEN_MODE = 2, 8
# DEVCONF_DISABLE_IPV6 of include/uapi/linux/ipv6.h: the 26th of an array of 32-bit numbers.
DISABLE_IPV6 = 26 * 4
IN6_ADDR_GEN_MODE_NONE = b"\x01"
VETH_INFO_PEER = 1
BR_STATE_FORWARDING = 3
IF_OPER_UP = 6

IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_NODAD = 0x02
IFA_F_NOPREFIXROUTE = 0x200
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE = 1, 4, 5, 6, 7, 15
RT_TABLE_MAIN, RT_TABLE_LOCAL = 254, 255
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTN_UNICAST, RTN_LOCAL, RTN_MULTICAST = 1, 2, 5
RTMSG_TYPE = 7
# Only a default route or a gateway on a device without addresses needs the one; the other asks for the entry.
RTNH_F_ONLINK = 4
RTM_F_FIB_MATCH = 0x2000
NDA_DST, NDA_LLADDR, NDA_IFINDEX = 1, 2, 8
NUD_PERMANENT = 0x80
NTF_PROXY = 0x08
RTNLGRP_LINK = 1
# net_namespace.h; struct rtgenmsg, padded.
NETNSA_NSID, NETNSA_FD = 1, 3
RTGENMSG = bytes(4)

IFINFO = struct.Struct("=BxHiII")
IFADDR = struct.Struct("=BBBBI")
RTMSG = struct.Struct("=BBBBBBBBI")
NDMSG = struct.Struct("=BxxxiHBB")
U8 = struct.Struct("=B")
U32 = struct.Struct("=I")
STATS64 = struct.Struct("=8Q")
