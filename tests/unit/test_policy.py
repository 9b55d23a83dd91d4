"""Which namespaces are networked, on which network, and by which rule."""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import permutations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.core.identity import alias_of, host_end_name
from agent.core.policy import Verdict, choose, stranger
from agent.model import LINK_GROUP, Cookie, Inside, Link, Network, Observed, Origin, Route, Rule, Wish
from tests.unit.worlds import INNER, LOOPBACK, OUTER, link, network

HOST, WEB = Cookie(1), Cookie(7)
DEFAULT, LAB = network("default"), network("lab", subnet="10.9.0.0/24")
EMPTY = Observed(WEB, None, Inside((LOOPBACK,)))
NAMED = Origin("named", "web", "/run/netns/web")
PROCESS = Origin(
    "process", "unit:runner@3.service", "/proc/812/ns/net", 812, "runner", "/system.slice/runner@3.service", "ci"
)
FOREIGN = replace(EMPTY, other_userns=True)
OUR_END = link(OUTER, host_end_name(WEB), group=LINK_GROUP, alias=alias_of("web"), peer=INNER)
ETH0 = link(INNER, "eth0", peer=OUTER)
LEFT_TO_ROOT = 'another user namespace owns it: only a rule with userns = "any" would network it'


@dataclass(frozen=True)
class Terms:
    exclude: tuple[str, ...] = ()
    networks: tuple[Network, ...] = (DEFAULT, LAB)
    rules: tuple[Rule, ...] = ()


def verdict(
    origin: Origin = NAMED,
    seen: Observed = EMPTY,
    exclude: tuple[str, ...] = (),
    rules: tuple[Rule, ...] = (),
    wish: Wish | None = None,
    held: bool = False,
) -> Verdict:
    return choose(origin, seen, HOST, Terms(exclude, rules=rules), wish, held=held)


def named(name: str) -> Origin:
    return replace(NAMED, name=name)


def rule(number: int, to: str | None, any_userns: bool = False, **patterns: str) -> Rule:
    return Rule(number, patterns, any_userns, to)


def with_device(*links: Link, routed: tuple[int, ...] = (), host_end: Link | None = None) -> Observed:
    routes = frozenset(Route(2, b"\x0a\0\0\0", 8, b"", device, 0) for device in routed)
    return Observed(WEB, host_end, Inside((LOOPBACK, *links), routes=routes))


def test_a_named_namespace_is_networked() -> None:
    assert verdict() == Verdict(DEFAULT, "discovery.directories: network default")


def test_one_that_only_processes_hold_is_left_alone() -> None:
    assert verdict(PROCESS) == Verdict(None, "no rule names it")


def test_the_default_network_is_chosen_wherever_it_stands() -> None:
    def chosen(*networks: Network) -> Network | None:
        return choose(NAMED, EMPTY, HOST, Terms(networks=networks), None, held=False).network

    assert chosen(LAB, DEFAULT) is DEFAULT
    assert chosen(LAB) is LAB


@pytest.mark.parametrize("origin", [NAMED, PROCESS])
def test_the_host_itself_is_never_networked(origin: Origin) -> None:
    found = verdict(origin, replace(EMPTY, cookie=HOST), rules=(rule(1, "lab"),), wish=Wish("w", network="lab"))
    assert found == Verdict(None, "is the host's own network namespace")


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("cni-*", "cni-0af3"),
        ("web", "web"),
        ("?", "x"),
        ("[ab]*", "box"),
        ("*", "-x\n"),
        ("qrouter-*", "qrouter-\udcff"),
    ],
)
def test_excluded_names_are_left_alone_by_the_pattern_that_says_so(pattern: str, name: str) -> None:
    excluded = Verdict(None, f'discovery.exclude: "{pattern}"')
    assert verdict(named(name), exclude=("other-*", pattern)) == excluded
    assert verdict(named(name), exclude=(pattern,), rules=(rule(1, "lab"),), wish=Wish("w", network="lab")) == excluded


@pytest.mark.parametrize(("pattern", "name"), [("cni-*", "my-cni-1"), ("Web", "web"), ("web", "web2"), ("", "web")])
def test_a_pattern_matches_whole_names_as_they_are_written(pattern: str, name: str) -> None:
    assert verdict(named(name), exclude=(pattern,)).network is DEFAULT
    assert verdict(named(name), rules=(rule(1, None, name=pattern),)).network is DEFAULT


def test_excluded_names_are_names_of_files_and_of_nothing_else() -> None:
    assert verdict(PROCESS, exclude=("*",), rules=(rule(1, "lab"),)).network is LAB


def test_a_wish_chooses_before_all_rules() -> None:
    wish = Wish("netns.d/web.toml", network="lab")
    for origin in (NAMED, PROCESS):
        assert verdict(origin, rules=(rule(1, None),), wish=wish) == Verdict(LAB, "netns.d/web.toml: network lab")


def test_a_wish_that_names_no_network_chooses_none() -> None:
    wish = Wish("netns.d/web.toml", mtu=1400)
    assert verdict(wish=wish).network is DEFAULT
    assert verdict(PROCESS, wish=wish) == Verdict(None, "no rule names it")
    assert verdict(rules=(rule(1, None),), wish=wish) == Verdict(None, "rule 1: match everything: leave")


def test_the_rule_that_decides_is_cited() -> None:
    rules = (rule(1, None, name="db-*"), rule(2, "lab", name="ci-*"), rule(3, None))
    assert verdict(named("ci-7"), rules=rules) == Verdict(LAB, 'rule 2: match name = "ci-*": network lab')
    assert verdict(named("db-7"), rules=rules) == Verdict(None, 'rule 1: match name = "db-*": leave')
    assert verdict(rules=rules) == Verdict(None, "rule 3: match everything: leave")
    runner = rule(1, "default", any_userns=True, source="process", cgroup="/system.slice/runner@*.service")
    assert verdict(PROCESS, rules=(runner,)).rule == (
        'rule 1: match source = "process", cgroup = "/system.slice/runner@*.service", userns = "any": network default'
    )
    assert verdict(named("\x1b[2J"), rules=(rule(1, "lab", name="\x1b*"),)).rule == (
        'rule 1: match name = "\\x1b*": network lab'
    )


ASKED = {
    "source": ("process", "named"),
    "name": ("unit:runner@?.service", "runner@*"),
    "path": ("/proc/*/ns/net", "/run/netns/*"),
    "command": ("run*", "Run*"),
    "cgroup": ("/system.slice/*", "/system.slice"),
    "user": ("c[ai]", "root"),
    "container": ("", "?*"),
}


@pytest.mark.parametrize("key", ASKED)
def test_each_thing_that_is_known_can_be_asked_for(key: str) -> None:
    right, wrong = ASKED[key]
    assert verdict(PROCESS, rules=(Rule(1, {key: right}, False, "lab"),)).network is LAB
    assert verdict(PROCESS, rules=(Rule(1, {key: wrong}, False, "lab"),)).network is None


@pytest.mark.parametrize("keys", list(permutations(("name", "user", "cgroup"), 2)))
def test_all_patterns_of_a_rule_must_match(keys: tuple[str, str]) -> None:
    right, wrong = ASKED[keys[0]][0], ASKED[keys[1]][1]
    assert verdict(PROCESS, rules=(Rule(1, {keys[0]: right, keys[1]: wrong}, False, "lab"),)).network is None


def test_what_another_user_namespace_owns_is_left_alone() -> None:
    for origin in (NAMED, PROCESS):
        for rules in ((), (rule(1, "lab"),), (rule(1, "lab", any_userns=True, name="other"),)):
            assert verdict(origin, FOREIGN, rules=rules) == Verdict(None, LEFT_TO_ROOT)
    assert verdict(seen=FOREIGN, wish=Wish("w", network="lab")) == Verdict(None, LEFT_TO_ROOT)


def test_what_another_user_namespace_owns_is_let_in_by_a_rule_that_says_so() -> None:
    inward = rule(2, "lab", any_userns=True)
    chosen = Verdict(LAB, 'rule 2: match userns = "any": network lab')
    assert verdict(PROCESS, FOREIGN, rules=(rule(1, None), inward)) == chosen
    assert verdict(PROCESS, EMPTY, rules=(inward,)) == chosen, "the others, too"
    wish = Wish("netns.d/web.toml", network="default")
    assert verdict(seen=FOREIGN, rules=(inward,), wish=wish) == Verdict(DEFAULT, "netns.d/web.toml: network default")
    kept_out = rule(2, None, any_userns=True)
    assert verdict(seen=FOREIGN, rules=(kept_out,), wish=wish).rule == 'rule 2: match userns = "any": leave'


_TEXT = st.text("ab-", max_size=3)
_PATTERN = st.text("ab-*?[]!", max_size=4)
_ORIGINS = st.builds(Origin, st.sampled_from(["named", "process"]), _TEXT, _TEXT, st.none(), _TEXT, _TEXT, _TEXT, _TEXT)
_RULES = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(["name", "command", "user"]), _PATTERN, max_size=2),
        st.booleans(),
        st.sampled_from(["default", "lab", None]),
    ),
    max_size=5,
).map(lambda rows: tuple(Rule(number, *row) for number, row in enumerate(rows, 1)))


def _applies(each: Rule, origin: Origin, other_userns: bool) -> bool:
    fits = [fnmatchcase(getattr(origin, key), pattern) for key, pattern in each.patterns.items()]
    return False not in fits and each.any_userns >= other_userns


@given(_ORIGINS, _RULES, st.booleans())
def test_the_first_rule_that_matches_decides(origin: Origin, rules: tuple[Rule, ...], other_userns: bool) -> None:
    found = verdict(origin, replace(EMPTY, other_userns=other_userns), rules=rules)
    for each in rules:
        if _applies(each, origin, other_userns):
            assert found.rule.startswith(f"rule {each.number}: ")
            assert (found.network.name if found.network else None) == each.network
            return
    assert not found.rule.startswith("rule ")
    assert (found.network is DEFAULT) == (origin.source == "named" and not other_userns)


@given(_ORIGINS, _RULES, _RULES, st.booleans())
def test_rules_behind_the_one_that_decides_change_nothing(
    origin: Origin, rules: tuple[Rule, ...], more: tuple[Rule, ...], other_userns: bool
) -> None:
    seen = replace(EMPTY, other_userns=other_userns)
    found = verdict(origin, seen, rules=rules)
    assume(found.rule.startswith("rule "))
    behind = tuple(replace(each, number=each.number + len(rules)) for each in more)
    assert verdict(origin, seen, rules=rules + behind) == found


def test_who_has_a_routed_device_has_a_network_already() -> None:
    found = verdict(seen=with_device(link(2, "wg0", "wireguard"), routed=(2,)))
    assert found == Verdict(None, "has a device with a route already: wg0")


@pytest.mark.parametrize(
    "kind", ["veth", "macvlan", "macvtap", "ipvlan", "ipvtap", "vlan", "netkit", "vxlan", "gre", "of-tomorrow"]
)
def test_who_got_a_device_of_a_network_belongs_to_its_maker(kind: str) -> None:
    found = verdict(seen=with_device(link(2, "eth0", kind)))
    assert found == Verdict(None, f"has a device of somebody else: eth0 ({kind})")


def test_who_got_a_piece_of_hardware_belongs_to_its_giver() -> None:
    found = verdict(seen=with_device(link(2, "enp1s0f0v3", "")))
    assert found == Verdict(None, "has a device of somebody else: enp1s0f0v3 (hardware)")


@pytest.mark.parametrize("kind", ["dummy", "tun", "wireguard", "ifb", "bridge", "vrf"])
def test_what_leads_nowhere_by_itself_is_no_network_yet(kind: str) -> None:
    assert verdict(seen=with_device(link(2, "x0", kind))).network is DEFAULT


FALLBACK_TUNNELS = {
    "tunl0": "ipip", "gre0": "gre", "gretap0": "gretap", "erspan0": "erspan", "ip_vti0": "vti", "sit0": "sit",
    "ip6tnl0": "ip6tnl", "ip6gre0": "ip6gre", "ip6_vti0": "vti6",
}  # fmt: skip


def test_tunnels_that_the_kernel_puts_everywhere_are_nobodys() -> None:
    tunnels = [link(index, name, kind) for index, (name, kind) in enumerate(FALLBACK_TUNNELS.items(), 2)]
    assert verdict(seen=with_device(*tunnels)).network is DEFAULT
    assert verdict(seen=with_device(*tunnels, routed=(3,))).rule == "has a device with a route already: gre0"
    assert verdict(seen=with_device(link(2, "sit1", "sit"))).rule == "has a device of somebody else: sit1 (sit)"
    assert verdict(seen=with_device(link(2, "sit0", "veth"))).rule == "has a device of somebody else: sit0 (veth)"


def test_routes_by_loopback_are_no_network() -> None:
    assert verdict(seen=with_device(routed=(LOOPBACK.index,))).network is DEFAULT


@pytest.mark.parametrize(
    ("destination", "is_network"), [("fe80", False), ("febf", False), ("fec0", True), ("fd00", True)]
)
def test_the_route_that_every_device_gets_is_no_network(destination: str, is_network: bool) -> None:
    route = Route(10, bytes.fromhex(destination) + bytes(14), 64, b"", 2, 256)
    seen = Observed(WEB, None, Inside((LOOPBACK, link(2, "dummy0", "dummy")), routes=frozenset({route})))
    assert (verdict(seen=seen).network is None) == is_network


def test_rules_and_wishes_do_not_take_what_is_somebody_elses() -> None:
    seen = with_device(link(2, "eth0"))
    found = verdict(seen=seen, rules=(rule(1, "lab"),), wish=Wish("w", network="lab"))
    assert found == Verdict(None, "has a device of somebody else: eth0 (veth)")


def test_our_own_device_is_no_stranger() -> None:
    seen = with_device(ETH0, routed=(INNER,), host_end=OUR_END)
    assert stranger(seen) is None
    assert verdict(seen=seen).network is DEFAULT


def test_what_is_ours_stays_ours_whatever_its_owner_adds() -> None:
    seen = with_device(ETH0, link(3, "wg0", "wireguard"), link(4, "veth7"), routed=(INNER, 3), host_end=OUR_END)
    assert verdict(seen=seen, held=True).network is DEFAULT
    assert verdict(seen=seen, held=True, rules=(rule(1, None),)).network is None, "rules go on deciding"


def test_beside_another_networks_device_ours_can_be_withdrawn() -> None:
    """Both came at the same time: whoever tells so says that it is not ours for good."""
    seen = with_device(ETH0, link(3, "veth7"), routed=(INNER,), host_end=OUR_END)
    assert stranger(seen) == "has a device of somebody else: veth7 (veth)"
    assert verdict(seen=seen, held=False) == Verdict(None, "has a device of somebody else: veth7 (veth)")


def test_a_namespace_that_nobody_looked_into_has_no_stranger() -> None:
    assert stranger(Observed(WEB, OUR_END, None)) is None


def test_names_that_a_namespace_chose_are_shown_without_their_control_characters() -> None:
    found = verdict(seen=with_device(link(2, "\x1b[2J\udcff"), routed=(2,)))
    assert found.rule == "has a device with a route already: \\x1b[2J\\xff"


SETTING_UP = {
    "runc init": "runc",
    "/usr/bin/runc init": "runc",
    "/usr/bin/crun --systemd-cgroup create web": "crun",
    "lxc-start -n web": "lxc-start",
    "[lxc monitor] /var/lib/lxc web": "lxc-start",
    "lxc-execute -n web -- true": "lxc-execute",
    "systemd-nspawn -D /srv/web": "systemd-nspawn",
}


@pytest.mark.parametrize(("command", "runtime"), SETTING_UP.items())
def test_a_runtime_at_work_is_not_disturbed(command: str, runtime: str) -> None:
    origin = replace(PROCESS, command=command)
    waits = Verdict(None, f"{runtime} is still setting it up", is_final=False)
    assert verdict(origin, rules=(rule(1, "lab"),)) == waits
    assert verdict(origin, rules=(rule(1, None, command="*"),)).is_final, "what is left alone is so for good"
    assert verdict(origin) == Verdict(None, "no rule names it")
    assert verdict(origin, with_device(link(2, "eth0")), rules=(rule(1, "lab"),)).is_final
    ours = with_device(ETH0, routed=(INNER,), host_end=OUR_END)
    assert verdict(origin, ours, rules=(rule(1, "lab"),)).network is LAB, "nothing is taken back"
    assert verdict(replace(NAMED, command=command), rules=(rule(1, "lab"),)).network is LAB


@pytest.mark.parametrize("command", ["runc run web", "sh -c lxc-start", "lxc-starter", "sleep 9", "bwrapper", ""])
def test_other_programs_are_no_runtimes_at_work(command: str) -> None:
    assert verdict(replace(PROCESS, command=command), rules=(rule(1, "lab"),)).network is LAB


def test_who_runs_another_program_keeps_the_network_unless_a_rule_says_otherwise() -> None:
    def chosen(*rules: Rule, admitted: Origin | None = PROCESS, seen: Observed = EMPTY) -> Verdict:
        by_now = replace(PROCESS, command="cat")
        return choose(by_now, seen, HOST, Terms(rules=rules), None, held=True, admitted=admitted)

    runner = rule(1, "lab", command="runner")
    assert chosen(runner) == Verdict(LAB, 'rule 1: match command = "runner": network lab')
    assert chosen(runner, admitted=None) == Verdict(None, "no rule names it")
    assert chosen(runner, rule(2, None, command="cat")).network is None
    assert chosen(runner, rule(2, "default", command="cat")).network is DEFAULT
    assert chosen() == Verdict(None, "no rule names it"), "the rule itself is gone"
    assert chosen(rule(1, None, command="runner")).network is None
    assert chosen(runner, seen=FOREIGN) == Verdict(None, LEFT_TO_ROOT)
    assert chosen(replace(runner, any_userns=True), seen=FOREIGN).network is LAB
