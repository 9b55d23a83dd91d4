"""Messages in wire form: what is encoded is decoded, and no bytes whatever break the decoder."""

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel import decode, messages, routing, rtnetlink
from agent.kernel.wire import HEADER, Message, Request, attribute, attributes, nested, number, text
from agent.kernel.wire import messages as split
from agent.model import LINK_GROUP, ROUTE_PROTOCOL, Address, Neighbour, Route, Traffic

KINDS = st.integers(0, 0x3FFF)
ADDRESSES = st.ip_addresses().map(lambda address: address.packed)
MACS = st.binary(min_size=6, max_size=6)
U32 = st.integers(0, 2**32 - 1)
INDEXES = st.integers(0, 2**31 - 1)


def decoded(request: Request, header: struct.Struct) -> dict[int, bytes]:
    return {kind: bytes(value) for kind, value in attributes(memoryview(request.body), header.size).items()}


@given(st.dictionaries(KINDS, st.binary(max_size=40), max_size=6), st.integers(0, 20))
def test_attributes_come_back_as_they_were(values: dict[int, bytes], offset: int) -> None:
    raw = bytes(offset) + b"".join(attribute(kind, value) for kind, value in values.items())
    assert {kind: bytes(value) for kind, value in attributes(memoryview(raw), offset).items()} == values


@given(KINDS, st.binary(max_size=9))
def test_attributes_are_padded_to_four_bytes(kind: int, value: bytes) -> None:
    raw = attribute(kind, value)
    assert len(raw) % 4 == 0
    assert struct.unpack_from("=H", raw) == (4 + len(value),), "the length does not count the padding"


def test_of_a_repeated_type_the_last_one_stays_and_nesting_is_marked() -> None:
    inner = attribute(7, b"a") + attribute(7, b"b")
    raw = nested(3, inner)
    assert struct.unpack_from("=HH", raw)[1] == 3 | 0x8000
    assert bytes(attributes(attributes(memoryview(raw))[3])[7]) == b"b"


@given(st.binary(max_size=15).map(lambda raw: raw.decode(errors="surrogateescape")), U32)
def test_any_name_that_the_kernel_knows_can_be_said_to_it(name: str, value: int) -> None:
    raw = memoryview(text(3, name) + number(4, value))
    found = attributes(raw)
    assert bytes(found[3]) == name.encode(errors="surrogateescape") + b"\0"
    assert struct.unpack("=I", found[4]) == (value,)


@given(st.binary(max_size=80), st.integers(0, 90))
def test_no_bytes_break_the_decoder(raw: bytes, offset: int) -> None:
    for value in attributes(memoryview(raw), offset).values():
        assert len(value) <= len(raw)
    assert sum(16 + len(message.payload) for message in split(raw)) <= len(raw)


@given(st.lists(st.tuples(st.integers(0, 2**16 - 1), st.binary(max_size=20)), max_size=5), st.integers(1, 30))
def test_datagrams_are_split_and_what_is_cut_short_is_dropped(parts: list[tuple[int, bytes]], cut: int) -> None:
    datagram = b"".join(
        HEADER.pack(16 + len(body), kind, 2, place, 9) + body + bytes(-len(body) % 4)
        for place, (kind, body) in enumerate(parts)
    )
    found = list(split(datagram))
    assert [(message.kind, bytes(message.payload)) for message in found] == parts
    assert [(message.sequence, message.port, message.flags) for message in found] == [
        (place, 9, 2) for place in range(len(parts))
    ]
    assert list(split(datagram[:-cut])) == found[: len(list(split(datagram[:-cut])))]


DECODERS = [decode.link, decode.address, decode.route, decode.neighbour, decode.is_local_route]


@pytest.mark.parametrize("decoder", DECODERS)
@given(raw=st.binary(max_size=120))
def test_hostile_messages_raise_what_is_documented(decoder: object, raw: bytes) -> None:
    assert callable(decoder)
    try:
        decoder(memoryview(raw))
    except struct.error:
        return


@given(st.data())
def test_cut_messages_raise_what_is_documented(data: st.DataObject) -> None:
    raw = _link_message() if data.draw(st.booleans()) else nested(1, attribute(2, b"abc"))
    cut = data.draw(st.integers(0, len(raw)))
    changed = data.draw(st.integers(0, len(raw) - 1))
    hostile = bytearray(raw)
    hostile[changed] = data.draw(st.integers(0, 255))
    try:
        decode.link(memoryview(bytes(hostile[:cut])))
    except struct.error:
        return


def _link_message(**changes: bytes) -> bytes:
    settings = bytearray(4 * 60)
    parts = {
        "name": text(rtnetlink.IFLA_IFNAME, b"vh\xff"),
        "mac": attribute(rtnetlink.IFLA_ADDRESS, b"\x06\x7e\1\2\3\4"),
        "mtu": number(rtnetlink.IFLA_MTU, 1400),
        "group": number(rtnetlink.IFLA_GROUP, LINK_GROUP),
        "alias": attribute(rtnetlink.IFLA_IFALIAS, "vethd:é".encode()),
        "master": number(rtnetlink.IFLA_MASTER, 5),
        "peer": number(rtnetlink.IFLA_LINK, 2),
        "nsid": number(rtnetlink.IFLA_LINK_NETNSID, 7),
        "state": attribute(rtnetlink.IFLA_OPERSTATE, b"\6"),
        "info": nested(
            rtnetlink.IFLA_LINKINFO,
            text(rtnetlink.IFLA_INFO_KIND, "veth"),
            text(rtnetlink.IFLA_INFO_SLAVE_KIND, "bridge"),
            nested(
                rtnetlink.IFLA_INFO_SLAVE_DATA,
                attribute(rtnetlink.IFLA_BRPORT_STATE, b"\3"),
                attribute(rtnetlink.IFLA_BRPORT_ISOLATED, b"\1"),
            ),
        ),
        "ipv6": nested(
            rtnetlink.IFLA_AF_SPEC, nested(rtnetlink.AF_INET6, attribute(rtnetlink.IFLA_INET6_CONF, bytes(settings)))
        ),
        "traffic": attribute(rtnetlink.IFLA_STATS64, struct.pack("=24Q", *range(1, 25))),
    } | changes
    return rtnetlink.IFINFO.pack(0, 1, 900, rtnetlink.IFF_UP, 0) + b"".join(parts.values())


def test_a_device() -> None:
    found = decode.link(memoryview(_link_message()))
    assert (found.index, found.name, found.kind, found.mtu, found.up, found.carrier) == (
        900, "vh\udcff", "veth", 1400, True, True,
    )  # fmt: skip
    assert (found.mac, found.alias, found.group) == (b"\x06\x7e\1\2\3\4", "vethd:é", LINK_GROUP)
    assert (found.master, found.peer, found.peer_nsid) == (5, 2, 7)
    assert (found.isolated, found.forwarding, found.ipv6) == (True, True, True)
    # include/uapi/linux/if_link.h, struct rtnl_link_stats64: packets before bytes, receive before transmit.
    assert found.traffic == Traffic(
        rx_packets=1, tx_packets=2, rx_bytes=3, tx_bytes=4, rx_errors=5, tx_errors=6, rx_dropped=7, tx_dropped=8
    )


def test_a_bare_device_has_nothing_but_its_number() -> None:
    found = decode.link(memoryview(rtnetlink.IFINFO.pack(0, 1, 3, 0, 0)))
    assert (found.index, found.name, found.kind, found.alias, found.mac) == (3, "", "", "", b"")
    assert (found.up, found.carrier, found.master, found.peer_nsid) == (False, False, 0, None)
    assert (found.isolated, found.forwarding, found.ipv6, found.traffic) == (False, False, True, Traffic())


@pytest.mark.parametrize(("place", "ipv6"), [(26, False), (25, True), (27, True)])
def test_ipv6_is_off_where_disable_ipv6_says_so(place: int, ipv6: bool) -> None:
    settings = bytearray(4 * 60)
    settings[4 * place] = 1
    spec = nested(
        rtnetlink.IFLA_AF_SPEC, nested(rtnetlink.AF_INET6, attribute(rtnetlink.IFLA_INET6_CONF, bytes(settings)))
    )
    assert decode.link(memoryview(_link_message(ipv6=spec))).ipv6 == ipv6
    assert decode.link(memoryview(_link_message(ipv6=b""))).ipv6, "an old kernel that does not tell"


@given(INDEXES, ADDRESSES, st.booleans(), st.data())
def test_addresses(device: int, address: bytes, routed: bool, data: st.DataObject) -> None:
    prefix = data.draw(st.integers(0, 8 * len(address)))
    request = routing.add_address(device, address, prefix, routed)
    assert decode.address(memoryview(request.body)) == Address(device, address, prefix)
    assert decoded(request, rtnetlink.IFADDR)[rtnetlink.IFA_FLAGS] == struct.pack("=I", 0x202 if routed else 0x02)


@given(INDEXES, ADDRESSES, st.data())
def test_on_link_routes_lead_to_the_subnet(device: int, address: bytes, data: st.DataObject) -> None:
    prefix = data.draw(st.integers(1, 8 * len(address)))
    family = 2 if len(address) == 4 else 10
    request = routing.add_on_link_route(device, address, prefix)
    host_bits = 8 * len(address) - prefix
    network = (int.from_bytes(address) >> host_bits << host_bits).to_bytes(len(address))
    assert decode.route(memoryview(request.body)) == Route(family, network, prefix, b"", device, 0)
    assert rtnetlink.RTMSG.unpack_from(request.body)[5] == ROUTE_PROTOCOL


@given(INDEXES, ADDRESSES, st.data())
def test_routes_to_the_subnet_by_the_gateway(device: int, address: bytes, data: st.DataObject) -> None:
    prefix = data.draw(st.integers(1, 8 * len(address)))
    request = routing.add_subnet_route(device, address, prefix, address)
    on_link = decode.route(memoryview(routing.add_on_link_route(device, address, prefix).body))
    assert on_link is not None
    assert decode.route(memoryview(request.body)) == replace(on_link, gateway=address)
    assert rtnetlink.RTMSG.unpack_from(request.body)[8] == rtnetlink.RTNH_F_ONLINK


@given(INDEXES, ADDRESSES)
def test_routes_to_one_namespace(device: int, address: bytes) -> None:
    request = routing.add_host_route(device, address, address)
    family = 2 if len(address) == 4 else 10
    assert decode.route(memoryview(request.body)) == Route(family, address, 8 * len(address), b"", device, 0)
    assert decoded(request, rtnetlink.RTMSG)[rtnetlink.RTA_PREFSRC] == address


@given(INDEXES, ADDRESSES, st.booleans())
def test_default_routes(device: int, gateway: bytes, routed: bool) -> None:
    family = 2 if len(gateway) == 4 else 10
    request = routing.add_default_route(device, family, gateway, routed)
    assert rtnetlink.RTMSG.unpack_from(request.body)[8] == (rtnetlink.RTNH_F_ONLINK if routed else 0)
    assert decode.route(memoryview(request.body)) == Route(family, b"", 0, gateway, device, 0)
    assert rtnetlink.RTMSG.unpack_from(request.body)[5] == ROUTE_PROTOCOL


@pytest.mark.parametrize(("table", "kind"), [(255, 1), (254, 2), (254, 3), (254, 6)])
def test_routes_that_lead_nowhere_or_stand_elsewhere_are_none(table: int, kind: int) -> None:
    raw = rtnetlink.RTMSG.pack(2, 0, 0, 0, table, 2, 0, kind, 0)
    assert decode.route(memoryview(raw)) is None
    assert decode.is_local_route(memoryview(raw)) == (kind == 2)


@given(st.integers(1, 2**31 - 1), ADDRESSES, MACS)
def test_neighbours(device: int, address: bytes, mac: bytes) -> None:
    request = routing.add_neighbour(device, address, mac)
    assert decode.neighbour(memoryview(request.body)) == Neighbour(device, address, mac)
    assert decode.neighbour(memoryview(routing.get_neighbour(device, address).body)) is None


@given(st.text("vh0123456789", min_size=1, max_size=15), MACS, MACS, st.integers(68, 65535), INDEXES)
def test_one_message_makes_the_pair(name: str, outer: bytes, inner: bytes, mtu: int, netns: int) -> None:
    request = messages.create_pair(name, outer, "eth0", inner, mtu, netns)
    assert request.kind == 16
    assert request.flags == 0x600, "create, exclusively"
    host_end = decode.link(memoryview(request.body))
    assert (host_end.name, host_end.mac, host_end.mtu, host_end.group) == (name, outer, mtu, LINK_GROUP)
    assert host_end.kind == "veth"
    found = attributes(memoryview(request.body), rtnetlink.IFINFO.size)
    data = attributes(attributes(found[rtnetlink.IFLA_LINKINFO])[rtnetlink.IFLA_INFO_DATA])
    peer = data[rtnetlink.VETH_INFO_PEER]
    device = decode.link(peer)
    assert (device.name, device.mac, device.mtu) == ("eth0", inner, mtu)
    assert bytes(attributes(peer, rtnetlink.IFINFO.size)[rtnetlink.IFLA_NET_NS_FD]) == struct.pack("=I", netns)


def test_every_request_says_what_it_is_for() -> None:
    requests = [
        messages.get_link("eth0"),
        messages.delete_group(LINK_GROUP),
        messages.set_mtu("eth0", 1400),
        messages.join_bridge("vh1", 5),
        routing.dump_routes(2),
    ]
    for request in requests:
        assert isinstance(request, Request)
        assert request.what.isprintable()
        assert len(request.body) % 4 == 0


def test_messages_are_named_tuples_that_share_the_datagram() -> None:
    datagram = HEADER.pack(20, 16, 0, 1, 0) + b"abcd"
    (message,) = split(datagram)
    assert isinstance(message, Message)
    assert message.payload.obj is datagram
