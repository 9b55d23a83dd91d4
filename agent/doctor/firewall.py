"""Checks of others' firewalls. An accept of ours does not override a drop in another table: nft(8), base chains."""

from collections.abc import Iterator
from fnmatch import fnmatchcase

from agent.doctor.facts import Facts, Json
from agent.doctor.finding import Finding
from agent.model import TABLE

Chain = tuple[str, str, str]  # family, table, chain


def nftables(facts: Facts) -> Iterator[Finding]:
    """Whether nftables can be used, and whether our table stands."""
    if facts.ruleset_problem:
        if facts.uid == 0:
            fix = "apt-get install libnftables1; and a kernel with CONFIG_NF_TABLES"
            yield Finding("nftables", "critical", f"nftables cannot be used: {facts.ruleset_problem}", fix)
        return
    tables = [entry["table"] for entry in facts.ruleset if "table" in entry]
    if facts.agent.status is not None and not any(table["name"] == TABLE for table in tables):
        fix = "the agent puts it back by itself; if it does not, see its log"
        yield Finding("nftables", "critical", f"the agent runs, but there is no table {TABLE}", fix)
    else:
        yield Finding("nftables", "ok", "nftables can be used")


def forward_drop(facts: Facts) -> Iterator[Finding]:
    """Chains of others that drop what they do not know, on the way through the host."""
    if facts.ruleset_problem:
        return
    dropping = [chain for chain in _base_chains(facts.ruleset, "forward") if _drops_by_default(facts.ruleset, chain)]
    blocked = [
        (chain, network.bridge)
        for chain in dropping
        for network in facts.config.networks
        if not _lets_through(facts.ruleset, chain, network.bridge)
    ]
    for chain, bridge in blocked:
        yield Finding(
            "forward-drop",
            "critical",
            f"table {chain[0]} {chain[1]}, chain {chain[2]} drops what is forwarded from {bridge}: "
            "namespaces do not reach beyond this host",
            _remedy(facts, chain, bridge),
        )
    if not blocked:
        yield Finding("forward-drop", "ok", "no other firewall drops what namespaces send")
    yield from _bridged_traffic(facts, bool(blocked))
    if "filter" in facts.legacy_tables:
        yield Finding(
            "legacy-iptables",
            "info",
            "rules of the old iptables stand beside nftables, and cannot be seen from here",
            "if namespaces do not reach beyond this host: `iptables-legacy -S FORWARD`",
        )


def _bridged_traffic(facts: Facts, blocked: bool) -> Iterator[Finding]:
    if not facts.sysctls.get("net.bridge.bridge-nf-call-iptables"):
        return
    yield Finding(
        "bridge-netfilter",
        "warning" if blocked else "info",
        "br_netfilter is on: traffic between namespaces of one bridge passes this host's firewall too",
        "sysctl -w net.bridge.bridge-nf-call-iptables=0, unless Docker or Kubernetes on this host needs it",
    )


def _base_chains(ruleset: tuple[Json, ...], hook: str) -> list[Chain]:
    chains = (entry["chain"] for entry in ruleset if "chain" in entry)
    return [_chain(chain, chain["name"]) for chain in chains if chain.get("hook") == hook and chain["table"] != TABLE]


def _chain(owner: Json, name: str) -> Chain:
    return owner["family"], owner["table"], name


def _rules(ruleset: tuple[Json, ...], chain: Chain) -> list[list[Json]]:
    rules = (entry["rule"] for entry in ruleset if "rule" in entry)
    return [rule["expr"] for rule in rules if _chain(rule, rule["chain"]) == chain]


def _drops_by_default(ruleset: tuple[Json, ...], chain: Chain) -> bool:
    """By policy, or by a last rule that drops or rejects everything (firewalld's way)."""
    chains = (entry["chain"] for entry in ruleset if "chain" in entry)
    if any(_chain(found, found["name"]) == chain and found.get("policy") == "drop" for found in chains):
        return True
    rules = _rules(ruleset, chain)
    if not rules:
        return False
    return not any("match" in part for part in rules[-1]) and any("drop" in p or "reject" in p for p in rules[-1])


def _lets_through(ruleset: tuple[Json, ...], chain: Chain, bridge: str) -> bool:
    """Whether rules reached from ``chain`` accept what comes from ``bridge``, and what answers it."""
    accepting = [rule for rule in _reached(ruleset, chain) if any("accept" in part for part in rule)]
    out = any(_names_device(rule, "iifname", bridge) for rule in accepting)
    back = any(_names_device(rule, "oifname", bridge) or _is_established(rule) for rule in accepting)
    return out and back


def _reached(ruleset: tuple[Json, ...], start: Chain) -> Iterator[list[Json]]:
    seen, todo = {start}, [start]
    while todo:
        for rule in _rules(ruleset, todo.pop()):
            yield rule
            for part in rule:
                target = (part.get("jump") or part.get("goto") or {}).get("target")
                chain = (start[0], start[1], target) if target else start
                if chain not in seen:
                    seen.add(chain)
                    todo.append(chain)


def _names_device(rule: list[Json], key: str, device: str) -> bool:
    for part in rule:
        match = part.get("match", {})
        if match.get("left") == {"meta": {"key": key}} and match.get("op") in ("==", "in"):
            right = match["right"]
            names = right.get("set", []) if isinstance(right, dict) else [right]
            if any(isinstance(name, str) and fnmatchcase(device, name) for name in names):
                return True
    return False


def _is_established(rule: list[Json]) -> bool:
    matches = (part.get("match", {}) for part in rule)
    return any("'state'" in str(match.get("left")) and "established" in str(match.get("right")) for match in matches)


def _remedy(facts: Facts, chain: Chain, bridge: str) -> str:
    """In the words of the program that made the chain."""
    family, table, name = chain
    own = {entry["chain"]["name"] for entry in facts.ruleset if "chain" in entry}
    if table == "firewalld":
        return f"firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload"
    if "ufw-before-forward" in own:
        return f"ufw route allow in on {bridge} && ufw route allow out on {bridge}"
    if table == "filter" and family in ("ip", "ip6"):
        program = "iptables" if family == "ip" else "ip6tables"
        target = "DOCKER-USER" if "DOCKER-USER" in own else name
        return f"{program} -I {target} -i {bridge} -j ACCEPT; {program} -I {target} -o {bridge} -j ACCEPT"
    rule = f"nft insert rule {family} {table} {name}"
    return f"{rule} iifname {bridge} accept; {rule} oifname {bridge} accept"
