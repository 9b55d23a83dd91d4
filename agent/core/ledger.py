"""What every namespace carried, also when its device was made anew, and what all carried together."""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter, le
from typing import Final

from agent.model import Cookie, Traffic

_NOTHING: Final = Traffic()
# Every sample of every namespace passes here: calling the class takes twice as long.
_as_traffic: Final = partial(tuple.__new__, Traffic)
_other_side_first: Final = itemgetter(4, 5, 6, 7, 0, 1, 2, 3)


@dataclass(slots=True)
class Account:
    """One namespace's traffic: what former devices ``carried``, and the ``last`` sample of this one.

    ``inside`` is the last sample of the end inside, which knows of drops that the host end does not.
    ``seen`` is the object that told of the host end: the same again tells nothing new.
    """

    network: str
    device: int
    carried: Traffic
    last: Traffic
    inside: Traffic = _NOTHING
    seen: Traffic | None = field(default=None, compare=False)

    @property
    def present(self) -> Traffic:
        """What this device carried. One drop may be told by both ends: the larger count is certain."""
        if self.inside == _NOTHING:
            return self.last
        return self.last._replace(
            rx_errors=max(self.last.rx_errors, self.inside.rx_errors),
            rx_dropped=max(self.last.rx_dropped, self.inside.rx_dropped),
            tx_errors=max(self.last.tx_errors, self.inside.tx_errors),
            tx_dropped=max(self.last.tx_dropped, self.inside.tx_dropped),
        )

    @property
    def all(self) -> Traffic:
        """What the namespace carried."""
        return self.present if self.carried == _NOTHING else total((self.carried, self.present))


@dataclass(frozen=True, slots=True)
class Books:
    """All that a ledger holds: accounts of living namespaces, sums of those that are gone."""

    accounts: Mapping[Cookie, Account]
    closed: Mapping[str, Traffic]


class Ledger:
    """Traffic by namespace, told from the namespace's side: what its device received is ``rx``."""

    def __init__(self) -> None:
        self._accounts: dict[Cookie, Account] = {}
        self._closed: dict[str, Traffic] = {}
        # What `carried` returned last: most namespaces are idle from one scrape to the next.
        self._sums: dict[Cookie, Traffic] = {}

    def note(self, cookie: Cookie, network: str, device: int, host_end: Traffic) -> None:
        """Take a sample of a host end (ifindex ``device``); what it sent is what the namespace received."""
        sample = mirrored(host_end)
        account = self._accounts.get(cookie)
        self._sums.pop(cookie, None)
        if account is None:
            self._accounts[cookie] = Account(network, device, _NOTHING, sample)
            return
        if account.device != device:
            account.carried = account.all
            account.device, account.last, account.inside = device, _NOTHING, _NOTHING
        account.last = _later(account.last, sample)

    def books(self) -> Books:
        """Return everything, for ``recall`` after a restart."""
        return Books({cookie: replace(account) for cookie, account in self._accounts.items()}, dict(self._closed))

    def recall(self, books: Books) -> None:
        """Go on from what an earlier run of the agent wrote down in this boot."""
        self._sums.clear()
        self._accounts = dict(books.accounts)
        self._closed = dict(books.closed)

    def close_all_but(self, living: Container[Cookie]) -> None:
        """End the accounts of namespaces that went while no agent ran."""
        for cookie in [each for each in self._accounts if each not in living]:
            self.close(cookie)

    def device(self, cookie: Cookie) -> int | None:
        """Return the ifindex of a namespace's host end as it was seen last."""
        account = self._accounts.get(cookie)
        return account.device if account else None

    def note_all(self, traffic: Mapping[int, Traffic]) -> None:
        """Take a sample of every host end that is known, by ifindex."""
        for cookie, account in self._accounts.items():
            host_end = traffic.get(account.device)
            if host_end is not None and host_end is not account.seen:
                account.seen = host_end
                account.last = _later(account.last, mirrored(host_end))
                self._sums.pop(cookie, None)

    def note_inside(self, samples: Mapping[Cookie, Traffic]) -> None:
        """Take samples of the ends inside namespaces, told from their own side."""
        for cookie, sample in samples.items():
            account = self._accounts.get(cookie)
            if account is not None:
                account.inside = _later(account.inside, sample)
                self._sums.pop(cookie, None)

    def note_last(self, cookie: Cookie, network: str, host_end: Traffic) -> None:
        """Take the sample of a host end that was just removed, whichever device it was."""
        account = self._accounts.get(cookie)
        self.note(cookie, network, account.device if account else 0, host_end)

    def note_gone(self, cookie: Cookie, device: int, host_end: Traffic) -> None:
        """Take what was told last of a host end that is gone; one half of that is 0."""
        account = self._accounts.get(cookie)
        if account is not None and account.device == device:
            account.last = _later(account.last, mirrored(host_end))
            self._sums.pop(cookie, None)

    def note_sent(self, cookie: Cookie, packets: int, octets: int) -> None:
        """Take what others have counted of all that a namespace sent, which may be less than that but never more."""
        account = self._accounts.get(cookie)
        if account is not None:
            known, last = account.all, account.last
            account.last = last._replace(
                tx_packets=last.tx_packets + max(0, packets - known.tx_packets),
                tx_bytes=last.tx_bytes + max(0, octets - known.tx_bytes),
            )
            self._sums.pop(cookie, None)

    def close(self, cookie: Cookie) -> Traffic:
        """End a namespace's account and return what it carried."""
        carried = self.carried(cookie)
        if carried is None:
            return Traffic()
        account = self._accounts.pop(cookie)
        del self._sums[cookie]
        self._closed[account.network] = total((self._closed.get(account.network, Traffic()), carried))
        return carried

    def carried(self, cookie: Cookie) -> Traffic | None:
        """Return what a namespace carried so far."""
        sums = self._sums.get(cookie)
        if sums is None and (account := self._accounts.get(cookie)) is not None:
            sums = self._sums[cookie] = account.all
        return sums

    def totals(self) -> Iterator[tuple[str, Traffic]]:
        """Yield what each network carried, namespaces that are gone included."""
        parts: dict[str, list[Traffic]] = {network: [sums] for network, sums in self._closed.items()}
        for cookie, account in self._accounts.items():
            sums = self.carried(cookie)
            if sums is not None:
                parts.setdefault(account.network, []).append(sums)
        for network, carried in parts.items():
            yield network, total(carried)


def mirrored(traffic: Traffic) -> Traffic:
    """Return the counters as the other end of the pair sees them."""
    return _as_traffic(_other_side_first(traffic))


def total(parts: Iterable[Traffic]) -> Traffic:
    """Return the sum of counters."""
    return Traffic(*map(sum, zip(*parts, strict=True)))


def _later(one: Traffic, other: Traffic) -> Traffic:
    """Return the later of two samples of one device, told by the counters themselves.

    Samples may come out of turn, and half of one is 0 once the other end of the pair is gone.
    """
    return other if all(map(le, one, other)) else Traffic(*map(max, one, other))
