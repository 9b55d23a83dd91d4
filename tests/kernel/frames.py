"""Ethernet frames made by hand, for what no honest program sends; and an ear that hears what comes through.

RFC 791 (IPv4), RFC 826 (ARP), RFC 8200 (IPv6), RFC 768 (UDP), RFC 4443 and 4861 (ICMPv6), IEEE 802.1Q.
"""

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from tests.harness import netns

ETH_P_ALL, ETH_P_IP, ETH_P_ARP, ETH_P_8021Q, ETH_P_IPV6 = 0x0003, 0x0800, 0x0806, 0x8100, 0x86DD
BROADCAST = b"\xff" * 6
ROUTER_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT, REDIRECT, MLD_REPORT = 134, 135, 136, 137, 143


def ethernet(to: bytes, source: bytes, kind: int, payload: bytes) -> bytes:
    return to + source + struct.pack("!H", kind) + payload


def vlan(frame: bytes, number: int = 1) -> bytes:
    return frame[:12] + struct.pack("!HH", ETH_P_8021Q, number) + frame[12:]


def arp(source: bytes, sender_mac: bytes, sender: str, target: str, operation: int = 2, to: bytes = BROADCAST) -> bytes:
    body = struct.pack("!HHBBH", 1, ETH_P_IP, 6, 4, operation)
    body += sender_mac + IPv4Address(sender).packed + bytes(6) + IPv4Address(target).packed
    return ethernet(to, source, ETH_P_ARP, body)


def udp(
    to: bytes, source: bytes, sender: str, target: str, payload: bytes, ports: tuple[int, int] = (5000, 9)
) -> bytes:
    body = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    if ":" in target:
        checked = struct.pack("!HHHH", *ports, len(body), _sum6(sender, target, 17, body)) + payload
        return ethernet(to, source, ETH_P_IPV6, _ipv6(sender, target, 17, checked, hops=64))
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, 17, 0)
    head += IPv4Address(sender).packed + IPv4Address(target).packed
    head = head[:10] + struct.pack("!H", _checksum(head)) + head[12:]
    return ethernet(to, source, ETH_P_IP, head + body)


def icmp6(to: bytes, source: bytes, sender: str, target: str, kind: int, body: bytes) -> bytes:
    plain = struct.pack("!BBH", kind, 0, 0) + body
    checked = struct.pack("!BBH", kind, 0, _sum6(sender, target, 58, plain)) + body
    return ethernet(to, source, ETH_P_IPV6, _ipv6(sender, target, 58, checked, hops=255))


@contextlib.contextmanager
def wire(name: netns.Name | None, device: str) -> Iterator[socket.socket]:
    """All frames of a device, both ways, for as long as the block lasts."""
    with netns.enter(name):
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with opened:
        opened.bind((device, 0))
        yield opened


def heard_before(ear: socket.socket, last: bytes, timeout: float = 5.0) -> list[bytes]:
    """The frames that come in until one that ends with `last`: frames of one sender keep their order."""
    deadline = time.monotonic() + timeout
    found: list[bytes] = []
    while select.select([ear], [], [], max(0.0, deadline - time.monotonic()))[0]:
        frame, address = ear.recvfrom(4096)
        if address[2] == socket.PACKET_OUTGOING:
            continue
        if frame.endswith(last):
            return found
        found.append(frame)
    raise AssertionError(f"the rightful frame did not come within {timeout} s; heard {found}")


def _ipv6(sender: str, target: str, protocol: int, payload: bytes, hops: int) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops)
    return head + IPv6Address(sender).packed + IPv6Address(target).packed + payload


def _sum6(sender: str, target: str, protocol: int, body: bytes) -> int:
    pseudo = IPv6Address(sender).packed + IPv6Address(target).packed + struct.pack("!II", len(body), protocol)
    return _checksum(pseudo + body)


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
