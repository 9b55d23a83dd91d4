"""A headless Chromium in the private host, driven through chromedriver by plain HTTP.

Source: W3C WebDriver, https://www.w3.org/TR/webdriver2/.
"""

import base64
import contextlib
import http.client
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.harness.netns import Lines

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_TIMEOUT = 30.0
KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "ArrowUp": "\ue013", "ArrowDown": "\ue015", "End": "\ue010"}


class Browser:
    """One window; elements are named by CSS selectors."""

    def __init__(self, port: int, directory: Path) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
        self._session = ""
        options = {"args": [*_FLAGS, f"--user-data-dir={directory}"]}
        capabilities = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
            # Tests wait for what they look for; the driver would wait some 12 s for a first, empty tab.
            "pageLoadStrategy": "none",
        }
        answer = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self._session = f"/session/{answer['sessionId']}"

    def close(self) -> None:
        self._ask("DELETE", self._session)
        self._connection.close()

    def open(self, url: str) -> None:
        self._ask("POST", f"{self._session}/url", {"url": url})

    def run(self, script: str, *args: object) -> Any:
        """What a function with this body returns in the page."""
        return self._ask("POST", f"{self._session}/execute/sync", {"script": script, "args": args})

    def texts(self, selector: str) -> list[str]:
        """What the elements hold, shown or not, in the order of the document."""
        texts: list[str] = self.run(
            "return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent)", selector
        )
        return texts

    def text(self, selector: str) -> str:
        return " ".join(self.texts(selector))

    def is_shown(self, selector: str) -> bool:
        script = "return Boolean(document.querySelector(arguments[0])?.checkVisibility())"
        return bool(self.run(script, selector))

    def click(self, selector: str) -> None:
        element = self._ask("POST", f"{self._session}/element", {"using": "css selector", "value": selector})[_ELEMENT]
        self._ask("POST", f"{self._session}/element/{element}/click", {})

    def press(self, *keys: str) -> None:
        """Real key presses, by the names in `KEYS` or as letters."""
        strokes = [KEYS.get(key, key) for key in keys]
        actions = [{"type": kind, "value": key} for key in strokes for kind in ("keyDown", "keyUp")]
        self._ask("POST", f"{self._session}/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def devtools(self, command: str, **parameters: object) -> Any:
        body = {"cmd": command, "params": parameters}
        return self._ask("POST", f"{self._session}/goog/cdp/execute", body)

    def resize(self, width: int, height: int, *, phone: bool = False, scale: float = 1) -> None:
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )

    def prefer(self, **features: str) -> None:
        """Media features, such as `prefers_color_scheme="dark"`."""
        listed = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.devtools("Emulation.setEmulatedMedia", features=listed)

    def screenshot(self) -> bytes:
        return base64.b64decode(self._ask("GET", f"{self._session}/screenshot"))

    def complaints(self) -> list[str]:
        """What the browser logged since the last call: errors of scripts, refusals by the security policy."""
        entries = self._ask("POST", f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] != "INFO"]

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        sent = None if body is None else json.dumps(body)
        self._connection.request(method, path, sent, {"Content-Type": "application/json"})
        value = json.loads(self._connection.getresponse().read())["value"]
        if isinstance(value, dict) and "error" in value:
            raise AssertionError(f"{method} {path}: {value['error']}: {value['message'].splitlines()[0]}")
        return value


@contextlib.contextmanager
def browsing(directory: Path = Path("/run/browser")) -> Iterator[Browser]:
    """A browser for the length of the block, with a new profile in `directory`.

    The host's own /run goes with the host, and its path is short: Chromium has sockets there.
    """
    directory.mkdir()
    environment = {**os.environ, "HOME": str(directory), "TMPDIR": str(directory), "XDG_CONFIG_HOME": str(directory)}
    command = ["chromedriver", "--port=0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0, env=environment
    ) as driver:
        try:
            assert driver.stdout is not None
            lines = Lines(driver.stdout)
            while not (started := re.search(r"successfully on port (\d+)", lines.readline(_TIMEOUT))):
                pass
            browser = Browser(int(started[1]), directory / "profile")
            yield browser
            browser.close()
        finally:
            driver.kill()
