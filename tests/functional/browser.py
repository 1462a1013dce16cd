"""Chromium without a window, for tests of the live page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from axe_core_python.selenium import Axe
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.functional.conftest import require
from tests.functional.waiting import containing, until


class Browser:
    """A browser on one web site; the test's own words for what it sees there."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self._base = ""
        self._outside: list[str] = []

    def open(self, base: str, path: str = "") -> None:
        """Goes to a site, and forgets what was before."""
        self.driver.get("about:blank")
        self._drain()
        self.driver.get_log("browser")
        self._base, self._outside = base, []
        self.driver.get(base + "/" + path)

    def go(self, route: str) -> None:
        """Follows a link of the page to another view."""
        self.run("location.hash = arguments[0]", route)

    def run(self, script: str, *arguments: object) -> Any:
        """Runs a script in the page; returns its result."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> WebElement:
        """Returns an element, by a selector of CSS."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def count(self, selector: str) -> int:
        """Returns how many elements there are."""
        return int(self.run("return document.querySelectorAll(arguments[0]).length", selector))

    def text(self, selector: str) -> str:
        """Returns the text that is seen in all elements of a selector."""
        script = (
            "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText).join('\\n')"
        )
        return str(self.run(script, selector))

    def shows(self, selector: str, text: str) -> str:
        """Waits until a text is seen in an element; returns all that is seen there."""
        return until(f"{selector} shows {text!r}", lambda: self.text(selector), containing(text))

    def hides(self, selector: str, text: str) -> None:
        """Waits until a text isn't seen in an element any more."""
        until(
            f"{selector} doesn't show {text!r}",
            lambda: self.text(selector),
            lambda seen: text not in seen,
        )

    def holds(self, what: str, script: str, holds: Callable[[Any], object] = bool) -> Any:
        """Waits until a script's result holds; returns it."""
        return until(what, lambda: self.run(script), holds)

    def click(self, selector: str) -> None:
        """Clicks on an element that may just be made anew."""

        def clicked() -> bool:
            try:
                self.find(selector).click()
            except StaleElementReferenceException:
                return False
            return True

        until(f"{selector} can be clicked", clicked)

    def prefer(self, scheme: str) -> None:
        """Has the system prefer light or dark colours."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def size(self, width: int, height: int, scale: float = 1) -> None:
        """Makes the window so large, in pixels of CSS."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False},
        )

    def console(self, but: str | None = None) -> list[str]:
        """Takes what the console got since the last time; without lines that have a text."""
        lines = [str(entry["message"]) for entry in self.driver.get_log("browser")]
        return [line for line in lines if but is None or but not in line]

    def outside(self) -> list[str]:
        """Returns the addresses elsewhere that were asked for since the site was opened."""
        self._drain()
        return self._outside

    def faults_of_access(self) -> list[str]:
        """Returns what axe-core finds that keeps out people: rule and element."""
        found = Axe().run(self.driver)["violations"]
        return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]

    def picture(self, path: Path) -> None:
        """Keeps a picture of the window."""
        self.driver.save_screenshot(str(path))

    def _drain(self) -> None:
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                if not url.startswith((self._base, "data:", "about:")):
                    self._outside.append(url)


@contextmanager
def chromium(*options: str) -> Iterator[Browser]:
    """Yields a browser; skips the test where none is installed, and fails it there in CI."""
    settings = webdriver.ChromeOptions()
    settings.binary_location = require("chromium", "chromium")
    driver = require("chromedriver", "chromium-driver")
    for option in (
        "--headless=new",
        "--no-sandbox",  # root may not have one
        "--disable-dev-shm-usage",  # small in containers
        "--window-size=1440,1000",
        *options,
    ):
        settings.add_argument(option)
    settings.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(service=Service(driver), options=settings)
    try:
        yield Browser(browser)
    finally:
        browser.quit()
