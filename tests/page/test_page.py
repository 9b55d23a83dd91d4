"""The page in a real browser: it shows what is, as it comes and goes, to every eye and by every key."""

from collections.abc import Callable
from functools import partial

import pytest

from tests.harness import netns
from tests.harness.expect import address4
from tests.harness.running import METRICS, Agent
from tests.harness.waiting import eventually
from tests.page.browser import Browser
from tests.page.traffic import talking

NOTHING = "\N{EN DASH}"
URL = f"http://{METRICS}/"
NAMES = "#body tr[data-id] .c-name"


@pytest.fixture
def look(agent: Agent, browser: Browser) -> Callable[..., Browser]:
    """Network these names, open the page, and wait until it shows them all."""

    def looked(*names: str) -> Browser:
        netns.add_many(list(names))
        for name in names:
            agent.wait_ready(name)
        browser.open(URL)
        eventually(lambda: sorted(browser.texts(NAMES)) == sorted(names), 5, "all names are shown")
        return browser

    return looked


def test_rows_come_and_go(agent: Agent, look: Callable[..., Browser]) -> None:
    page = look("web")
    assert page.text("#pulse") == "live"
    assert page.text("#body .c-address") == address4("web").partition("/")[0]
    netns.add_netns("late")
    eventually(lambda: sorted(page.texts(NAMES)) == ["late", "web"], 3, "the new one shows")
    eventually(lambda: "late" in page.text("#events"), 3, "and what happened")
    netns.add_netns("cni-other")
    eventually(lambda: "left alone" in page.texts("#body .badge"), 3, "one left alone shows")
    for name in ("late", "cni-other"):
        netns.del_netns(name)
    eventually(lambda: page.texts(NAMES) == ["web"], 3, "those that are gone are gone")
    agent.stop()
    eventually(lambda: page.text("#pulse").startswith("connection lost"), 3, "it says that nothing is live")
    agent.start()
    eventually(lambda: page.text("#pulse") == "live" and page.texts(NAMES) == ["web"], 15, "it is live again")
    # The refused connections are the browser's own notes.
    assert [
        line for line in page.complaints() if "ERR_CONNECTION_REFUSED" not in line and "/api/live" not in line
    ] == []


def test_rates_move(look: Callable[..., Browser]) -> None:
    page = look("busy", "idle")
    eventually(lambda: set(page.texts("#body .c-receive")) == {NOTHING}, 5, "nothing moves yet")
    with talking({"busy": 200_000}):
        eventually(lambda: page.texts("#body .c-receive")[0].endswith("kB/s"), 5, "the busy one receives")
        assert page.texts(NAMES) == ["busy", "idle"], "the busiest comes first"
        assert page.texts("#body .c-transmit")[0].endswith("kB/s")
        rate = (
            'return Math.max(...[...(await import("/assets/store.js")).store.rows.values()].map((row) => row.transmit))'
        )
        eventually(lambda: 100_000 < page.run(rate) < 600_000, 5, "about what is sent")
        eventually(lambda: page.run("return document.querySelector('.spark path').getAttribute('d')"), 5, "a sparkline")
        assert page.text("#figures .receive dd").split()[0] != NOTHING
        page.click(f"{NAMES} a")
        eventually(lambda: page.is_shown("#detail .chart .line.receive"), 5, "a chart of the last minutes")
    eventually(lambda: page.texts("#detail .figures dd")[0] == NOTHING, 6, "and it is quiet again")
    assert page.complaints() == []


def test_sorted_searched_and_driven_by_keys(look: Callable[..., Browser]) -> None:
    page = look("web-1", "web-2", "web-10", "db")
    page.click(".c-name button")
    assert page.texts(NAMES) == ["db", "web-1", "web-2", "web-10"]
    assert page.run("return document.querySelector('th.c-name').ariaSort") == "ascending"
    page.click(".c-name button")
    assert page.texts(NAMES) == ["web-10", "web-2", "web-1", "db"]
    page.click(".c-address button")
    assert page.texts(NAMES)[0] == min(_last_bytes(page), key=lambda pair: pair[1])[0]
    page.click(".c-name button")
    page.press("/", *"web")
    assert page.texts(NAMES) == ["web-1", "web-2", "web-10"]
    assert page.text("#count") == "3 of 4 namespaces"
    page.press("ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp")
    assert page.run("return document.activeElement.querySelector('a').textContent") == "web-2"
    page.press("Enter")
    eventually(lambda: page.text("#detail h2").startswith("web-2"), 5, "Enter opens it")
    assert address4("web-2") in page.text("#detail .facts")
    assert "networked" in page.text("#detail .history")
    assert "/run/netns/web-2" in page.text("#detail")
    page.press("Escape")
    eventually(lambda: page.is_shown("#table"), 2, "Escape leads back")
    assert page.run("return document.activeElement.querySelector('a').textContent") == "web-2"
    page.press("/", "Escape", *"no such name")
    assert page.texts(NAMES) == []
    assert page.is_shown("#empty")


def _last_bytes(page: Browser) -> list[tuple[str, int]]:
    addresses = page.texts("#body .c-address")
    return [(name, int(address.rpartition(".")[2])) for name, address in zip(page.texts(NAMES), addresses, strict=True)]


def test_hostile_names_are_text(agent: Agent, browser: Browser) -> None:
    names: dict[str | bytes, str] = {
        "<script>document.title='owned'<script>": "<script>document.title='owned'<script>",
        "<img src=x onerror=document.title='owned'>": "<img src=x onerror=document.title='owned'>",
        "\"'&quot;": "\"'&quot;",
        "two\nlines": "two\\x0alines",
        "\x1b[31mred": "\\x1b[31mred",
        b"\xff\xfe": "\\xff\\xfe",
        "\u202egpj": "\\xe2\\x80\\xaegpj",
        "back\\slash": "back\\\\slash",
        "n" * 255: "n" * 255,
    }
    for name in names:
        netns.add_netns(name)
        agent.wait_ready(name)
    browser.open(URL)
    eventually(lambda: sorted(browser.texts(NAMES)) == sorted(names.values()), 5, "all are shown, escaped")
    for shown in names.values():
        (key,) = browser.run(
            "const names = [...document.querySelectorAll(arguments[0])].filter((n) => n.textContent === arguments[1]);"
            "return names.map((name) => name.querySelector('a').hash)",
            NAMES,
            shown,
        )
        browser.run("location.hash = arguments[0]", key)
        eventually(partial(_has_view, browser, shown), 5, f"{shown} has its view")
        assert browser.run("return document.title") == f"{shown} · vethd"
    assert browser.run("return document.querySelectorAll('main img, main script').length") == 0
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.complaints() == [], "nothing for the security policy to refuse"


def _has_view(page: Browser, name: str) -> bool:
    return page.text("#detail h2").startswith(name)


def test_fits_a_phone_and_the_dark(look: Callable[..., Browser]) -> None:
    page = look("web", "n" * 255)
    colour = "return getComputedStyle(document.documentElement).backgroundColor"
    page.prefer(prefers_color_scheme="light")
    light = page.run(colour)
    page.prefer(prefers_color_scheme="dark")
    assert page.run(colour) != light
    page.resize(360, 740, phone=True)
    fits = "return document.documentElement.scrollWidth <= 360"
    eventually(lambda: page.run(fits), 2, "nothing sticks out")
    assert page.is_shown("#order"), "without headings, a list chooses the order"
    for selector in (f"{NAMES} a", "#body .c-address", "#body .c-receive"):
        assert page.is_shown(selector)
    page.click(f"{NAMES} a")
    eventually(lambda: page.is_shown("#detail .chart"), 5, "the view of one")
    assert page.run(fits)


def test_motion_is_left_out_for_those_who_ask(look: Callable[..., Browser]) -> None:
    page = look("busy")
    page.prefer(prefers_reduced_motion="reduce")
    frames = "let n = 0; const ask = requestAnimationFrame; window.requestAnimationFrame = (f) => (n += 1, ask(f));"
    page.run(f"{frames} window.frames_ = () => n")
    with talking({"busy": 100_000}):
        eventually(lambda: page.texts("#body .c-receive")[0].endswith("kB/s"), 5, "it is busy")
        before: int = page.run("return frames_()")
        seen = 'return (await import("/assets/store.js")).store.host.time'
        first: float = page.run(seen)
        eventually(lambda: page.run(seen) > first + 2, 6, "three samples have come")
        assert page.run("return frames_()") - before <= 8, "drawn with the samples, not on and on"


def test_of_many_only_what_can_be_seen_is_drawn(agent: Agent, browser: Browser) -> None:
    names = [f"web-{number}" for number in range(300)]
    netns.add_many(names)
    for name in names:
        agent.wait_ready(name)
    browser.open(URL)
    eventually(lambda: browser.text("#count") == "300 namespaces", 10, "all are counted")
    assert len(browser.texts(NAMES)) < 60
    browser.click(".c-name button")
    browser.press("/", "ArrowDown", "End")
    assert browser.run("return document.activeElement.querySelector('a').textContent") == "web-299"
    assert browser.run("return document.activeElement.getBoundingClientRect().bottom <= innerHeight")
    assert len(browser.texts(NAMES)) < 60
    browser.press("/", *"web-123")
    eventually(lambda: browser.texts(NAMES) == ["web-123"], 2, "the search finds the one")
