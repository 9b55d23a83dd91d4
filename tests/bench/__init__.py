"""`python -m tests.bench`: how fast and how well namespaces are networked, beside what else does it.

Every contender has a private host to itself and never sees the real machine's network. Contenders that
are compared take turns, trial by trial, so that whatever else the machine does hits them alike: read the
ratios, and the times only together with the machine they were taken on.

One trial is the life of one namespace. `ip netns add` returns and the clock starts; an outside observer
opens its sockets inside (0.1 ms, on everybody's clock). For vethd the clock ends when that observer sees
address and default route; for a peer it ends when the peer's command returns. At that instant the observer
sends two TCP SYNs, to the gateway and to a server beyond the NAT. Then the namespace is removed.
"""
