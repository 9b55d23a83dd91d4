"""The text that is handed to nftables: what each option of a network puts into which set."""

import re
from dataclasses import replace
from importlib.resources import files

import pytest

from agent.core.identity import host_end_name
from agent.kernel.members import Member
from agent.kernel.ruleset import _STATIC_SETS, Ruleset
from agent.model import Cookie, Network, Port
from tests.unit.worlds import lease_in, network

WEB = network()
LAB = network("lab", "10.9.0.0/24", "", bridge="vethd-lab")
ONE: Member = (host_end_name(Cookie(1)), lease_in(WEB, 2))
TWO: Member = (host_end_name(Cookie(2)), lease_in(WEB, 3))
FOUR_ONLY: Member = (host_end_name(Cookie(3)), lease_in(LAB, 2))
SET = re.compile(
    r"(?:set|map) (\w+) \{ type(?:of)? ([^;]*);(?: flags interval;)?(?: counter;)? (?:elements = \{ (.*) \};)? *\}"
)


def render(*networks: Network, members: tuple[Member, ...] = ()) -> str:
    return Ruleset().render(networks, members)


def elements(text: str) -> dict[str, str]:
    return {name: listed for name, _, listed in SET.findall(text)}


def test_the_default_network() -> None:
    assert elements(render(WEB)) == {
        "bridges": '"vethd0"',
        "strict": '"vethd0"',
        "strict4": "172.27.0.0/16",
        "strict6": "fd00:7e74:1::/64",
        "there4": "172.27.0.1, 172.27.255.255",
        "there6": "fd00:7e74:1::1",
        "nat4": "172.27.0.0/16",
        "nat6": "fd00:7e74:1::/64",
        "within": '"vethd0" . "vethd0"',
        "reach": "",
        "guarded": "",
        "services": "",
        "guests": "",
        "members4": "",
        "members6": "",
        "streams4": "",
        "routed_streams4": "",
        "targets6": "",
        "macs6": "",
        "elsewhere": "",
        "reach4": "172.27.0.0/16 . 172.27.0.0/16",
        "reach6": "fd00:7e74:1::/64 . fd00:7e74:1::/64",
        "open4": "172.27.0.0/16",
        "open6": "fd00:7e74:1::/64",
        "services4": "",
        "services6": "",
        "plain4": "",
        "plain6": "",
        "routed": "",
        "sources4": "",
        "sources6": "",
    }


@pytest.mark.parametrize(
    ("networks", "changed"),
    [
        ([replace(WEB, nat=False)], {"nat4": "", "nat6": ""}),
        ([replace(WEB, subnet6=None)], {"nat6": "", "reach6": "", "open6": "", "strict6": "", "there6": ""}),
        ([replace(WEB, isolate=True)], {"within": "", "reach4": "", "reach6": ""}),
        (
            [replace(WEB, bridge="br-web")],
            {"bridges": '"br-web"', "strict": '"br-web"', "within": '"br-web" . "br-web"'},
        ),
        (
            [replace(WEB, anti_spoof=False)],
            {"strict": "", "strict4": "", "strict6": "", "there4": "", "there6": ""},
        ),
        ([replace(WEB, host_access="none")], {"guarded": '"vethd0"', "open4": "", "open6": ""}),
        (
            [replace(WEB, host_access=(Port("tcp", 53), Port("udp", 53)))],
            {
                "guarded": '"vethd0"',
                "services": '"vethd0" . tcp . 53, "vethd0" . udp . 53',
                "open4": "",
                "open6": "",
                "services4": "172.27.0.0/16 . tcp . 53, 172.27.0.0/16 . udp . 53",
                "services6": "fd00:7e74:1::/64 . tcp . 53, fd00:7e74:1::/64 . udp . 53",
            },
        ),
        ([replace(WEB, host_access=())], {"guarded": '"vethd0"', "open4": "", "open6": ""}),
        (
            [WEB, LAB],
            {
                "bridges": '"vethd0", "vethd-lab"',
                "strict": '"vethd0", "vethd-lab"',
                "strict4": "172.27.0.0/16, 10.9.0.0/24",
                "there4": "172.27.0.1, 172.27.255.255, 10.9.0.1, 10.9.0.255",
                "nat4": "172.27.0.0/16, 10.9.0.0/24",
                "within": '"vethd0" . "vethd0", "vethd-lab" . "vethd-lab"',
                "reach4": "172.27.0.0/16 . 172.27.0.0/16, 10.9.0.0/24 . 10.9.0.0/24",
                "open4": "172.27.0.0/16, 10.9.0.0/24",
            },
        ),
        (
            [
                replace(WEB, isolate=True, reach=("lab",)),
                replace(LAB, nat=False, host_access="none", anti_spoof=False),
            ],
            {
                "bridges": '"vethd0", "vethd-lab"',
                "within": '"vethd-lab" . "vethd-lab"',
                "reach": '"vethd0" . "vethd-lab"',
                "guarded": '"vethd-lab"',
                "reach4": "172.27.0.0/16 . 10.9.0.0/24, 10.9.0.0/24 . 10.9.0.0/24",
                "reach6": "",
            },
        ),
    ],
)
def test_what_an_option_changes(networks: list[Network], changed: dict[str, str]) -> None:
    assert elements(render(*networks)) == elements(render(WEB)) | changed


def test_members_are_host_end_mac_and_address_together() -> None:
    found = elements(render(WEB, LAB, members=(ONE, TWO, FOUR_ONLY)))
    one, two, three = ONE[0], TWO[0], FOUR_ONLY[0]
    assert found["guests"] == f'"{one}", "{two}", "{three}"'
    assert found["members4"] == (
        f'"{one}" . 02:7e:ac:1b:00:02 . 172.27.0.2, "{two}" . 02:7e:ac:1b:00:03 . 172.27.0.3,'
        f' "{three}" . 02:7e:0a:09:00:02 . 10.9.0.2'
    )
    assert found["streams4"] == found["members4"]
    assert found["members6"] == (
        f'"{one}" . 02:7e:ac:1b:00:02 . fd00:7e74:1::2, "{two}" . 02:7e:ac:1b:00:03 . fd00:7e74:1::3'
    )
    assert found["targets6"] == (
        f'"{one}" . 0xfd007e74000100000000000000000002, "{two}" . 0xfd007e74000100000000000000000003'
    )
    assert found["macs6"] == f'"{one}" . 0x027eac1b0002, "{two}" . 0x027eac1b0003'
    assert found["there4"].endswith("172.27.0.2, 172.27.0.3, 10.9.0.2")
    assert found["there6"].endswith("fd00:7e74:1::2, fd00:7e74:1::3")


def test_only_the_sets_differ_there_is_no_rule_per_network_or_namespace() -> None:
    lone = render(WEB)
    crowd = render(WEB, replace(LAB, host_access="none"), members=(ONE, TWO, FOUR_ONLY))
    assert SET.sub("", lone) == SET.sub("", crowd)
    template = files("agent.kernel").joinpath("ruleset.nft").read_text()
    assert re.sub(r"\n\s*(set|map) .*", "", template) == re.sub(r"\n\s*(set|map) .*", "", lone)


def test_there_are_two_tables_and_nothing_else() -> None:
    text = render(WEB)
    assert re.findall(r"^\w.*", text, re.MULTILINE) == ["table inet vethd {", "table bridge vethd {"]


def test_every_set_that_does_not_count_is_emptied_before_it_is_filled() -> None:
    declared = {
        family: tuple(re.findall(r"(?:set|map) (\w+) \{(?! type \w+; size \d+; flags dynamic)", table))
        for family, table in re.findall(r"^table (\w+) vethd \{(.*?)^\}", render(WEB), re.DOTALL | re.MULTILINE)
    }
    assert declared == _STATIC_SETS


def test_a_routed_namespace_is_known_by_device_and_address_where_it_is_routed() -> None:
    routed = (ONE[0], lease_in(WEB, 2, routed=True))
    found = elements(render(WEB, members=(routed, TWO)))
    assert found["routed"] == f'"{ONE[0]}"'
    assert found["sources4"] == f'"{ONE[0]}" . 172.27.0.2'
    assert found["routed_streams4"] == found["sources4"]
    assert found["sources6"] == f'"{ONE[0]}" . fd00:7e74:1::2'
    assert found["guests"] == f'"{TWO[0]}"'
    assert found["elsewhere"] == "02:7e:ac:1b:00:02 : 02:7e:ac:1b:00:01"
    assert found["there4"].endswith("172.27.0.2, 172.27.0.3")
