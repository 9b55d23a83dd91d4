"""All about one name, for its view of the live page: every text in it prints."""

from agent.core.identity import printable
from agent.core.roster import Record
from agent.export import rows, views
from agent.model import Traffic
from agent.reconciler.world import World


def detail(world: World, path: str) -> views.View | None:
    """What is known of a path, None when it was never seen."""
    explanation = views.explanation(world, path)
    if explanation is None:
        return None
    record = world.roster.get(path)
    carried = world.ledger.carried(record.cookie) if record and record.cookie is not None else None
    return {
        "path": printable(path),
        "namespace": _shown(explanation["namespace"]),
        "events": [_shown(incident) for incident in explanation["history"]],
        "traffic": None if carried is None else _counters(carried),
        "connections": None if carried is None or record is None else _connections(world, record),
    }


def _shown(view: views.View | None) -> views.View | None:
    """A view in which all text prints; the cookie is text too, being larger than JavaScript's numbers."""
    if view is None:
        return None
    told = {key: rows.shown(value) if isinstance(value, str) else value for key, value in view.items()}
    if "name" in view:
        told |= {"name": printable(view["name"]), "path": printable(view["path"]), "cookie": str(view["cookie"])}
        told["aliases"] = [printable(path) for path in view["aliases"]]
    return told


def _counters(traffic: Traffic) -> views.View:
    return {
        f"{direction}_{kind}": getattr(traffic, f"{side}_{kind}")
        for direction, side in (("receive", "rx"), ("transmit", "tx"))
        for kind in ("bytes", "packets", "errors", "dropped")
    }


def _connections(world: World, record: Record) -> views.View:
    if record.cookie is None:
        return {}
    opened, accepted = world.connections.counted(record.cookie)
    entries = world.connections.entries(record.cookie)
    return {
        "opened": opened,
        "accepted": accepted,
        "entries": [[protocol, state, count] for (protocol, state), count in sorted(entries.items())],
    }
