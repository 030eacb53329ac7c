"""A real Chromium without a window, controlled through a pipe by the little of its protocol that the tests need."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from convlab.cli.explore import EXPLORER

# The browser may take so many seconds for an answer.
PATIENCE = 60.0
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--hide-scrollbars",
)


class Browser:
    """One page of Chromium.

    Attributes:
        events: what it reported on its own, oldest first.
    """

    def __init__(self, program: str, profile: Path, *flags: str) -> None:
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        # The protocol wants file descriptors 3 and 4.
        shell = f'exec "$@" 3<&{requests} 4>&{answers}'
        command = ["bash", "-c", shell, "-", program, *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdout=quiet, stderr=quiet, pass_fds=(requests, answers))
        os.close(requests)
        os.close(answers)
        self.events: list[dict[str, Any]] = []
        self._buffer, self._number, self._session = b"", 0, {}
        page = next(each for each in self._targets() if each["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _targets(self) -> list[dict[str, Any]]:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            targets = self.call("Target.getTargets")["targetInfos"]
            if any(each["type"] == "page" for each in targets):
                return targets
            time.sleep(0.05)
        raise TimeoutError("Chromium opened no page")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        request = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._requests, json.dumps(request).encode() + b"\0")
        while (message := self._next()).get("id") != self._number:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], PATIENCE)
            more = os.read(self._answers, 1 << 20) if ready else b""
            assert more, f"Chromium says nothing; it ended with {self._process.poll()}"
            self._buffer += more
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def evaluate(self, script: str) -> Any:
        """The value of an expression, awaited."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, path: Path, width: int = 800, scheme: str = "light", media: str = "screen") -> None:
        """Show a file, and forget the events before it."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call(
            "Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        self.evaluate("Promise.all([...document.images].map(image => image.decode().catch(() => {})))")

    def screenshot(self) -> bytes:
        """The whole page as a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
        os.close(self._requests)
        os.close(self._answers)


def chromium() -> str:
    program = shutil.which("chromium")
    assert program, "these tests need Debian's Chromium: apt-get install -y chromium"
    return program


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(chromium(), tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser_with_webcam(tmp_path: Path) -> Iterator[Browser]:
    """A browser whose webcam shows a moving pattern, and which asks nobody."""
    webcam = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    browser = Browser(chromium(), tmp_path, *webcam)
    yield browser
    browser.close()


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Callable[..., Browser]:
    """Open HTML in the browser."""

    def opened(html: str, **how: Any) -> Browser:
        path = tmp_path / "report.html"
        path.write_text(html, encoding="utf-8")
        browser.open(path, **how)
        return browser

    return opened


@pytest.fixture
def page(browser: Browser) -> Browser:
    browser.open(EXPLORER, width=1400)
    return browser
