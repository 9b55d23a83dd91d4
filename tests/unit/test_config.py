"""The config: what is taken, and one line for each thing that is refused."""

import os
import re
import tomllib
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Config, load, locate, parse
from agent.errors import ConfigError
from agent.model import Port

ROOT = Path(__file__).resolve().parents[2]
LAB = '[network.lab]\nsubnet = "10.9.0.0/24"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "vethd.toml"


def of(text: str) -> Config:
    return parse(tomllib.loads(text), Path("vethd.toml"))


def refusal(text: str) -> str:
    """The one line by which a config is refused, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        of(text)
    line = str(caught.value)
    assert line.isprintable(), "one line, and nothing that a terminal would act upon"
    assert line.startswith("vethd.toml: ")
    return line.removeprefix("vethd.toml: ")


def test_the_file_that_comes_with_vethd_says_what_is_built_in() -> None:
    shipped = load(ROOT / "config" / "vethd.toml")
    built_in = load(None)
    assert shipped.source is not None
    assert {name: getattr(shipped, name) for name in Config.__slots__ if name != "source"} == {
        name: getattr(built_in, name) for name in Config.__slots__ if name != "source"
    }


def test_built_in_defaults() -> None:
    config = of("")
    (network,) = config.networks
    assert (config.state_dir, config.socket) == (Path("/var/lib/vethd"), Path("/run/vethd/vethd.sock"))
    assert config.socket_group is None
    assert (config.mode, config.dns, config.wishes) == ("manage", "host", Path("/etc/vethd/netns.d"))
    assert config.rules == ()
    assert config.directories == (Path("/run/netns"),)
    assert config.exclude == ("cni-*", "netns-*", "qrouter-*", "qdhcp-*")
    assert (config.metrics_host, config.metrics_port) == ("127.0.0.1", 9853)
    assert (network.name, network.bridge, network.interface) == ("default", "vethd0", "eth0")
    assert (network.subnet, network.subnet6) == (IPv4Network("172.27.0.0/16"), IPv6Network("fd00:7e74:1::/64"))
    assert (network.nat, network.mtu, network.isolate, network.host_access) == (True, 0, False, "all")
    assert (network.anti_spoof, network.reach, network.bridge_ports) == (True, (), 1000)


def test_everything_can_be_set() -> None:
    config = of(
        """
        agent = { mode = "observe", state_dir = "/s", socket = "/r/v.sock", group = "net", dns = "off" }
        discovery = { directories = ["/a", "/b"], exclude = [], wishes = "/w" }
        metrics = { listen = "[::1]:80" }
        [network.default]
        subnet = "10.0.0.0/8"
        subnet6 = ""
        bridge = "br-web"
        bridge_ports = 0
        interface = "net0"
        nat = false
        mtu = 1400
        isolate = true
        host_access = ["tcp/53", "udp/53"]
        anti_spoof = false
        reach = ["lab"]
        [network.lab]
        subnet = "192.168.4.0/29"
        host_access = "none"
        """
    )
    web, lab = config.networks
    assert (config.state_dir, config.socket, config.socket_group) == (Path("/s"), Path("/r/v.sock"), "net")
    assert (config.mode, config.dns) == ("observe", "off")
    assert (config.directories, config.exclude, config.wishes) == ((Path("/a"), Path("/b")), (), Path("/w"))
    assert (config.metrics_host, config.metrics_port) == ("::1", 80)
    assert (web.subnet6, web.bridge, web.interface, web.nat, web.mtu) == (None, "br-web", "net0", False, 1400)
    assert (web.isolate, web.anti_spoof, web.reach, web.bridge_ports) == (True, False, ("lab",), 0)
    assert web.host_access == (Port("tcp", 53), Port("udp", 53))
    assert (lab.host_access, lab.bridge, lab.subnet6, lab.capacity) == ("none", "vethd-lab", None, 5)


def test_a_network_of_another_name_gets_a_bridge_name_that_fits() -> None:
    (network,) = of('[network.production-europe]\nsubnet = "10.9.0.0/24"\n').networks
    assert network.bridge == "vethd-productio"


WRONG = [
    ("agent.state_dir", '[agent]\nstate_dir = "var"', "'var' is not allowed: must be an absolute path"),
    ("agent.state_dir", '[agent]\nstate_dir = "/a\\u0000b"', "must be an absolute path"),
    ("agent.socket", "[agent]\nsocket = 7", "7 is not allowed: must be an absolute path"),
    ("agent.group", '[agent]\ngroup = ""', "must be the name of a group"),
    ("agent", "agent = 1", "must be a table"),
    ("agent.sockets", '[agent]\nsockets = "/x"', "unknown; known here: dns, group, mode, socket, state_dir"),
    ("network.default.bridge_name", '[network.default]\nbridge_name = "x"', "unknown; known here: anti_spoof, bridge,"),
    ("networks", "[networks.default]", "unknown; known here: agent, discovery, metrics, network, rule"),
    ("a\\x0ab", '"a\\nb" = 1', "unknown; known here: agent, discovery, metrics, network, rule"),
    ("agent.mode", '[agent]\nmode = "watch"', """'watch' is not allowed: must be "manage" or "observe\""""),
    ("agent.mode", "[agent]\nmode = true", 'must be "manage" or "observe"'),
    ("agent.dns", '[agent]\ndns = "on"', """'on' is not allowed: must be "host" or "off\""""),
    ("agent.dns", "[agent]\ndns = []", 'must be "host" or "off"'),
    ("discovery.directories", "[discovery]\ndirectories = []", "must be a list of absolute paths, at least one"),
    ("discovery.directories", '[discovery]\ndirectories = ["netns"]', "must be a list of absolute paths"),
    ("discovery.directories", '[discovery]\ndirectories = "/run/netns"', "must be a list of absolute paths"),
    ("discovery.exclude", "[discovery]\nexclude = [1]", "must be a list of patterns"),
    ("discovery.wishes", '[discovery]\nwishes = "netns.d"', "'netns.d' is not allowed: must be an absolute path"),
    ("discovery.wishes", '[discovery]\nwishes = ""', "must be an absolute path"),
    ("metrics.listen", "[metrics]\nlisten = 9853", "must be HOST:PORT"),
    ("metrics.listen", '[metrics]\nlisten = "9853"', "must be HOST:PORT"),
    ("metrics.listen", '[metrics]\nlisten = ":9853"', "must be HOST:PORT"),
    ("metrics.listen", '[metrics]\nlisten = "localhost:0"', "must be HOST:PORT"),
    ("metrics.listen", '[metrics]\nlisten = "localhost:65536"', "must be HOST:PORT"),
    ("network", "network = 1", "must be a table"),
    ("network.default", "[[network.default]]", "must be a table"),
    ("network.a b", '[network."a b"]', "is no name for a network: must be 1 to 32 letters"),
    ("network.\\x1b[2J", '[network."\\u001b[2J"]', "is no name for a network"),
    ("network.é", '[network."é"]', "is no name for a network"),
    (f"network.{'n' * 33}", f"[network.{'n' * 33}]", "is no name for a network"),
    ("network.lab.subnet", "[network.lab]", "is missing: must be an IPv4 network of /29 or larger"),
    ("network.default.subnet", '[network.default]\nsubnet = "172.27.0.1/16"', "/29 or larger without host bits"),
    ("network.default.subnet", '[network.default]\nsubnet = "10.0.0.0/30"', "must be a unicast IPv4 network of /29"),
    ("network.default.subnet", '[network.default]\nsubnet = "fd00::/64"', "must be a unicast IPv4 network of /29"),
    ("network.default.subnet", '[network.default]\nsubnet = "0.0.0.0/0"', "must be a unicast IPv4 network of /29"),
    ("network.default.subnet", '[network.default]\nsubnet = "127.1.0.0/16"', "must be a unicast IPv4 network of /29"),
    ("network.default.subnet", '[network.default]\nsubnet = "239.0.0.0/16"', "must be a unicast IPv4 network of /29"),
    ("network.default.subnet", '[network.default]\nsubnet = ""', "must be a unicast IPv4 network of /29"),
    ("network.default.subnet", "[network.default]\nsubnet = 10", "10 is not allowed: must be a unicast IPv4 network"),
    ("network.default.subnet6", '[network.default]\nsubnet6 = "10.0.0.0/8"', "must be a unicast, not link-local IPv6"),
    ("network.default.subnet6", '[network.default]\nsubnet6 = "fe80::/64"', "must be a unicast, not link-local IPv6"),
    ("network.default.subnet6", '[network.default]\nsubnet6 = "fd00::%1/64"', "must be a unicast, not link-local IPv6"),
    (
        "network.default.subnet6",
        '[network.default]\nsubnet6 = "fd00::/113"',
        "fd00::/113 is smaller than 172.27.0.0/16",
    ),
    ("network.default.bridge", '[network.default]\nbridge = "sixteen-bytes-16"', "a device name of at most 15 bytes"),
    ("network.default.bridge", '[network.default]\nbridge = "éééééééé"', "a device name of at most 15 bytes"),
    (
        "network.default.bridge_ports",
        "[network.default]\nbridge_ports = 1001",
        "1001 is not allowed: must be 0 to 1000",
    ),
    ("network.default.bridge_ports", "[network.default]\nbridge_ports = -1", "must be 0 to 1000"),
    ("network.default.bridge_ports", "[network.default]\nbridge_ports = true", "must be 0 to 1000"),
    ("network.default.bridge_ports", "[network.default]\nbridge_ports = 1e3", "must be 0 to 1000"),
    ("network.default.nat", '[network.default]\nnat = "yes"', "'yes' is not allowed: must be true or false"),
    ("network.default.nat", "[network.default]\nnat = 1", "1 is not allowed: must be true or false"),
    ("network.default.isolate", "[network.default]\nisolate = 0", "must be true or false"),
    ("network.default.anti_spoof", '[network.default]\nanti_spoof = ""', "must be true or false"),
    ("network.default.mtu", "[network.default]\nmtu = 1279", "1279 is not allowed: must be 0 or 1280 to 65535"),
    ("network.default.mtu", "[network.default]\nmtu = 65536", "must be 0 or 1280 to 65535"),
    ("network.default.mtu", "[network.default]\nmtu = true", "must be 0 or 1280 to 65535"),
    ("network.default.mtu", "[network.default]\nmtu = -1", "must be 0 or 1280 to 65535"),
    ("network.default.mtu", "[network.default]\nmtu = 1500.0", "must be 0 or 1280 to 65535"),
    (
        "network.default.host_access",
        '[network.default]\nhost_access = "some"',
        'must be "all", "none" or a list of ports',
    ),
    ("network.default.host_access", '[network.default]\nhost_access = ["sctp/53"]', 'must be "all", "none" or a list'),
    ("network.default.host_access", '[network.default]\nhost_access = ["tcp/0"]', 'must be "all", "none" or a list'),
    ("network.default.host_access", '[network.default]\nhost_access = ["tcp"]', 'must be "all", "none" or a list'),
    ("network.default.host_access", "[network.default]\nhost_access = [53]", 'must be "all", "none" or a list'),
    ("network.default.reach", '[network.default]\nreach = ["lab"]', "'lab' is not allowed: must name other networks"),
    ("network.default.reach", '[network.default]\nreach = ["default"]', "must name other networks of this file"),
    ("network.default.reach", '[network.default]\nreach = "default"', "must be a list of network names"),
]


@pytest.mark.parametrize(
    ("key", "text", "message"), WRONG, ids=[f"{key}-{place}" for place, (key, *_) in enumerate(WRONG)]
)
def test_wrong_values_are_refused_by_key_and_by_what_is_allowed(key: str, text: str, message: str) -> None:
    line = refusal(text)
    assert line.startswith(f"{key}: "), line
    assert message in line


@pytest.mark.parametrize("key", ["bridge", "interface"])
@pytest.mark.parametrize(
    "name", ["", "a b", "a/b", "a:b", "eth%d", ".", "..", "lo", "all", "default", "v*", "a\\\\b", "\\u200b"]
)
def test_names_that_the_kernel_or_nftables_would_not_take_are_refused(key: str, name: str) -> None:
    assert refusal(f'[network.default]\n{key} = "{name}"').startswith(f"network.default.{key}: ")


def test_networks_must_not_overlap() -> None:
    line = refusal('[network.default]\nsubnet = "10.0.0.0/8"\n' + LAB)
    assert line == "network.default.subnet: 10.0.0.0/8 overlaps 10.9.0.0/24 of network.lab; subnets must not overlap"
    six = refusal('[network.default]\nsubnet6 = "fd00::/48"\n' + LAB + 'subnet6 = "fd00:0:0:9::/64"\n')
    assert six.startswith("network.default.subnet6: fd00::/48 overlaps fd00:0:0:9::/64 of network.lab;")


def test_each_network_has_a_bridge_of_its_own() -> None:
    line = refusal('[network.default]\nbridge = "br0"\n' + LAB + 'bridge = "br0"\n')
    assert line == "network.default.bridge: 'br0' is that of network.lab too; each network has its own"


@pytest.mark.parametrize(
    "content",
    [
        b"[agent\n",
        b'x = "\xff"',
        b"x = 1\nx = 2",
        b"x = " + b"9" * 5000,
        b"x = " + b"[" * 5000,
        b"\x00",
        b"x = 2024-13-01",
    ],
    ids=["unclosed", "not UTF-8", "twice", "digits", "deep", "zero", "date"],
)
def test_files_that_are_no_toml(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}: is no valid TOML: ")
    assert str(caught.value).isprintable()


def test_files_that_cannot_be_read(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{file}: cannot be read: No such file or directory")):
        load(file)
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path}: cannot be read: Is a directory")):
        load(tmp_path)


def test_files_are_utf8_whatever_the_locale_says(file: Path) -> None:
    file.write_bytes('[discovery]\nexclude = ["é*"]\n'.encode())
    assert load(file).exclude == ("é*",)


def test_which_file_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VETHD_CONFIG", raising=False)
    monkeypatch.setattr("agent.config.DEFAULT_PATH", file)
    assert locate(None) is None
    file.touch()
    assert locate(None) == file
    monkeypatch.setenv("VETHD_CONFIG", "/elsewhere.toml")
    assert locate(None) == Path("/elsewhere.toml")
    assert locate(Path("/explicit.toml")) == Path("/explicit.toml")
    monkeypatch.setenv("VETHD_CONFIG", "")
    assert locate(None) == file


_LEAF = st.none().flatmap(lambda _: st.booleans() | st.integers() | st.floats() | st.text(max_size=8))
_VALUES = st.recursive(
    _LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
_KEYS = (
    "subnet",
    "subnet6",
    "bridge",
    "bridge_ports",
    "interface",
    "nat",
    "mtu",
    "isolate",
    "host_access",
    "anti_spoof",
    "reach",
)
_NETWORK = st.dictionaries(st.sampled_from(_KEYS) | st.text(max_size=4), _VALUES, max_size=4)
_MATCH = st.dictionaries(
    st.sampled_from(["name", "source", "user", "userns"]) | st.text(max_size=4), _VALUES, max_size=3
)
_RULE = st.dictionaries(
    st.sampled_from(["match", "network", "leave"]) | st.text(max_size=4), _VALUES | _MATCH, max_size=3
)
_DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "agent": _VALUES | st.dictionaries(st.sampled_from(["state_dir", "socket", "group", "mode", "dns"]), _VALUES),
        "discovery": _VALUES | st.dictionaries(st.sampled_from(["directories", "exclude", "wishes"]), _VALUES),
        "metrics": _VALUES | st.dictionaries(st.just("listen"), _VALUES),
        "network": _VALUES
        | st.dictionaries(st.sampled_from(["default", "lab"]) | st.text(max_size=4), _NETWORK, max_size=3),
        "rule": _VALUES | st.lists(_RULE, max_size=3),
    },
)


@given(_DOCUMENTS)
def test_any_document_is_taken_or_refused_in_one_line(document: dict[str, Any]) -> None:
    taken, refused = _outcome(document)
    assert refused.isprintable()
    assert taken is not None or refused.startswith("vethd.toml: ")
    for network in taken.networks if taken else ():
        assert len(os.fsencode(network.bridge)) <= 15
        assert network.capacity > 0
        assert network.subnet6 is None or network.subnet6.num_addresses >= network.subnet.num_addresses


def _outcome(document: dict[str, Any]) -> tuple[Config | None, str]:
    try:
        return parse(document, Path("vethd.toml")), ""
    except ConfigError as error:
        return None, str(error)


@pytest.mark.parametrize("name", ["vh", "vhost0", "vh60g8c2hdn6erh"])
def test_a_bridge_is_not_called_like_a_host_end(name: str) -> None:
    with pytest.raises(ConfigError, match=r"network\.default\.bridge: .* nor beginning with vh"):
        parse({"network": {"default": {"bridge": name}}}, None)
