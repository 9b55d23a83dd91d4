"""`python -m tests.bench`: how fast and how well namespaces are networked, beside what else does it.

Every contender has a private host to itself and never sees the real machine's network. Contenders that
are compared take turns, trial by trial, so that whatever else the machine does hits them alike: read the
ratios, and the times only together with the machine they were taken on.

One trial is the life of one namespace. It is made, by the system calls of `ip netns add`, and the clock
starts; an outside observer opens its sockets inside (0.1 ms, on everybody's clock) and looks for a route to
the world. When it finds one the clock ends, for a peer not before its command has returned. At that instant
the observer sends two TCP SYNs, to the gateway and to a server beyond the NAT. Then the namespace is removed.

`run` does all parts in their order: `growth` (ever more namespaces, beside the `floor`; then the `crowd` at
rest), `burst`, `connections`, `side_by_side` (the peers), `throughput`, `scrapes`. `goals` holds what they
found against what was asked for, `verdict` what must hold on any machine.
"""
