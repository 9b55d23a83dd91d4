"""Waiting until a namespace is networked, as the commands that need one do."""

import contextlib
import os
import time

from agent.cli import render
from agent.cli.client import Client, Json
from agent.cli.exits import FAILED, LEFT_ALONE, Failure

# Beside its own limit the agent gets this long to say that the time is over.
GRACE_SECONDS = 5.0


def networked(client: Client, name: str, seconds: float) -> Json:
    """The namespace, once it is networked.

    Raises Failure: with 1 when that was not so in time or has failed, with 3 when policy leaves it alone.
    """
    answer = client.post("/v1/wait", {"name": name, "timeout": seconds}, seconds + GRACE_SECONDS)
    if answer["outcome"] == "ready":
        namespace: Json = answer["namespace"] or {}
        return namespace
    shown, reason = render.printable(name), answer.get("reason") or ""
    if answer["outcome"] == "left":
        raise Failure(f"{shown}: left alone: {reason}", LEFT_ALONE)
    what = f"not networked within {seconds:g} s" if answer["outcome"] == "timeout" else "failed"
    raise Failure(f"{shown}: {what}{': ' if reason else ''}{reason}", FAILED)


def networked_by(client: Client, name: str, network: str, seconds: float) -> Json:
    """As `networked`, in a certain network: a wish may be read a moment after its namespace was networked without it.

    Raises Failure with 1, too, when it is still in another one after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    namespace = networked(client, name, seconds)
    # The events begin with what is now, so that nothing is missed in between.
    with contextlib.closing(client.stream("/v1/watch", seconds)) as events:
        while namespace["network"] != network and time.monotonic() < deadline:
            event = next(events, None)
            if event is None:
                break
            if event.get("name") == os.path.basename(name):
                namespace = networked(client, name, max(deadline - time.monotonic(), 0))
    if namespace["network"] != network:
        raise Failure(f"{render.printable(name)}: is in network {namespace['network']}, not {network}", FAILED)
    return namespace


def addresses(namespace: Json) -> str:
    """Its addresses with their prefix lengths, IPv4 first."""
    both = (namespace.get("address"), namespace.get("address6"))
    return " ".join(address for address in both if address) or "no address"
