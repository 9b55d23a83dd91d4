"""The commands that ask a running agent."""

import argparse
import json
import time
from collections.abc import Callable

from agent.cli import render, waiting
from agent.cli.client import AgentNotRunning, Json, api_name, client_of
from agent.cli.exits import DONE

# What `vethd watch` leaves to --json, `status` and `explain`.
_OF_A_PROCESS = ("command", "cgroup", "user", "container")
UNTOLD = frozenset(
    {"time", "event", "name", "initial", "path", "source", "state", "cookie", "plumb_ms", "aliases", *_OF_A_PROCESS}
)


def status(options: argparse.Namespace) -> int:
    """``vethd status [NAME]``: 1 when NAME is unknown."""
    client = client_of(options)
    if options.name is not None:
        found = client.post("/v1/namespace", {"name": api_name(options.name)})
        return _show(found, _about_namespace, options.json)
    return _show(client.get("/v1/status"), _about_agent, options.json)


def list_namespaces(options: argparse.Namespace) -> int:
    """``vethd list``."""
    return _show(client_of(options).get("/v1/namespaces"), _about_namespaces, options.json)


def wait(options: argparse.Namespace) -> int:
    """``vethd wait NAME``: 0 ready, 1 timed out or failed, 3 left alone by policy."""
    name = api_name(options.name)
    namespace = waiting.networked(client_of(options), name, options.timeout)
    print(f"{render.printable(name)}: ready, {waiting.addresses(namespace)}")
    return DONE


def watch(options: argparse.Namespace) -> int:
    """``vethd watch``: until interrupted; 4 when the agent ends."""
    client = client_of(options)
    try:
        for event in client.stream("/v1/watch"):
            print(json.dumps(event) if options.json else _about_event(event), flush=True)
    except KeyboardInterrupt:
        return DONE
    raise AgentNotRunning("the agent has stopped")


def top(options: argparse.Namespace) -> int:
    """``vethd top``: until q, Ctrl-C or SIGTERM; 4 when the agent ends."""
    from agent.cli import top

    return top.run(client_of(options), options.sort, options.interval, once=options.once, as_json=options.json)


def explain(options: argparse.Namespace) -> int:
    """``vethd explain NAME``: 1 when NAME was never seen."""
    name = api_name(options.name)
    answer = client_of(options).post("/v1/explain", {"name": name})
    return _show(answer, lambda found: _explanation(name, found), options.json)


def _show(answer: Json, human: Callable[[Json], list[str]], as_json: bool) -> int:
    print(json.dumps(answer, indent=2) if as_json else "\n".join(human(answer)))
    return DONE


def _about_agent(found: Json) -> list[str]:
    state = render.coloured("ready", "green") if found["ready"] else render.coloured("starting", "yellow")
    counts = found["namespaces"]
    uplink = found["uplink"]
    dropped = {source: count for source, count in found["events_dropped"].items() if count}
    lines = [
        f"vethd {found['version']}, {state}, pid {found['pid']}, up {render.duration(found['uptime_seconds'])}",
        "",
        *render.pairs(
            [
                ("namespaces", ", ".join(f"{count} {name}" for name, count in counts.items())),
                ("uplink", f"{uplink['device']}, MTU {uplink['mtu']}" if uplink else "none: no default route"),
                ("events lost", ", ".join(f"{count} from {source}" for source, count in dropped.items()) or "none"),
                ("problems", "none" if not found["problems"] else str(len(found["problems"]))),
            ]
        ),
        *(render.coloured(f"  {render.harmless(problem)}", "yellow") for problem in found["problems"]),
        "",
    ]
    head = ("NETWORK", "SUBNET", "SUBNET6", "BRIDGE", "MTU", "LEASES", "PORTS")
    rows = [
        (
            network["name"],
            network["subnet"],
            network["subnet6"] or "-",
            network["bridge"],
            str(network["mtu"] or "-"),
            f"{network['leases']} of {network['capacity']}",
            str(network["ports"]),
        )
        for network in found["networks"]
    ]
    return lines + render.table(head, rows)


def _about_namespaces(found: Json) -> list[str]:
    head = ("NAME", "STATE", "NETWORK", "ADDRESS", "ADDRESS6", "DEVICE", "WHY")
    rows = [
        (
            namespace["name"],
            namespace["state"],
            namespace["network"] or "-",
            namespace["address"] or "-",
            namespace["address6"] or "-",
            namespace["device"] or "-",
            namespace["reason"] or (namespace["rule"] if namespace["state"] == "left" else ""),
        )
        for namespace in found["namespaces"]
    ]
    return render.table(head, rows) if rows else ["no namespaces; make one: ip netns add web"]


def _about_namespace(namespace: Json) -> list[str]:
    return render.pairs((key, value) for key, value in _facts(namespace) if value)


def _facts(namespace: Json) -> list[tuple[str, str]]:
    milliseconds = namespace["plumb_ms"]
    return [
        ("name", namespace["name"]),
        ("state", namespace["state"]),
        ("why", namespace["reason"]),
        ("rule", namespace["rule"]),
        ("network", namespace["network"] or ""),
        ("address", namespace["address"] or ""),
        ("address6", namespace["address6"] or ""),
        ("host device", namespace["device"] or ""),
        ("networked in", "" if milliseconds is None else f"{milliseconds:.1f} ms"),
        ("path", namespace["path"]),
        *((key, namespace.get(key) or "") for key in _OF_A_PROCESS),
        ("also known as", ", ".join(namespace["aliases"])),
        ("cookie", "" if namespace["cookie"] is None else str(namespace["cookie"])),
    ]


def _explanation(name: str, found: Json) -> list[str]:
    namespace = found["namespace"]
    lines = _about_namespace(namespace) if namespace else [f"{render.printable(name)}: gone"]
    history = found["history"]
    if not history:
        return lines
    rows = [(_clock(entry["time"]), entry["event"], entry["detail"]) for entry in history]
    return [*lines, "", *render.table(("TIME", "EVENT", "DETAIL"), rows)]


def _about_event(event: Json) -> str:
    told = {key: value for key, value in event.items() if key not in UNTOLD and value not in (None, "", [])}
    if "seconds" in told:
        told["took"] = f"{told.pop('seconds') * 1000:.1f}ms"
    detail = " ".join(f"{key}={_value(value)}" for key, value in told.items())
    name = render.printable(event.get("name") or "-")
    return f"{_clock(event['time'])}  {render.printable(event['event']):<13}  {name:<15}  {detail}".rstrip()


def _value(value: object) -> str:
    if isinstance(value, list):
        return ",".join(_value(item) for item in value)
    return render.printable(value if isinstance(value, str) else json.dumps(value))


def _clock(unix: float) -> str:
    """Local time of day with milliseconds; the date too when it is not today's."""
    then, now = time.localtime(unix), time.localtime()
    shape = "%H:%M:%S" if then[:3] == now[:3] else "%Y-%m-%d %H:%M:%S"
    return f"{time.strftime(shape, then)}.{int(unix * 1000) % 1000:03d}"
