"""Airflow's pages as a person uses them: by what is written on buttons and beside fields, with patience."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    StaleElementReferenceException,
    WebDriverException,
)
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.common.proxy import Proxy
from selenium.webdriver.remote.client_config import ClientConfig
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement

from dev.harness.processes import wait_until

T = TypeVar("T")

PATIENCE = 30
SIZE = (1280, 800)
FLAGS = (
    "--headless",
    "--no-sandbox",  # it refuses to start as root otherwise
    "--disable-dev-shm-usage",  # small in containers
    "--disable-gpu",
    "--hide-scrollbars",  # they come and go with a dialog and shift the page
    "--lang=en-US",
    "--no-proxy-server",  # all it asks is on loopback
    # Without these it looks up hosts of its maker, from a network that may be closed.
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Airflow ties only its standard fields to their labels by id, so a field is what stands in one box with the label.
_FIELD = (
    "//*[@data-scope='field' and @data-part='root'][.//label[normalize-space(translate(., '*', ''))='{}']]"
    "//*[(self::input or self::textarea) and not(@aria-hidden)]"
)


@contextmanager
def chromium_session(driver_url: str, chromium: str, profile: Path) -> Iterator[WebDriver]:
    """Start a browser with an empty profile, and end it."""
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    client = ClientConfig(driver_url, proxy=Proxy({"proxyType": "DIRECT"}), timeout=60)
    driver = webdriver.Remote(driver_url, options=options, client_config=client)
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """
    A browser's window on one Airflow.

    :param url: Airflow's
    :param folder: where pictures of failures go
    """

    def __init__(self, driver: WebDriver, url: str, folder: Path) -> None:
        self.driver = driver
        self.url = url
        self.folder = folder
        self.resize(SIZE)

    def open(self, path: str) -> None:
        """Open a page of Airflow."""
        self.driver.get(self.url + path)

    def resize(self, size: tuple[int, int]) -> None:
        """Give the page itself, without the window's frame, this size."""
        self.driver.set_window_size(*size)
        inner = self.driver.execute_script("return [innerWidth, innerHeight]")
        self.driver.set_window_size(*(2 * wanted - got for wanted, got in zip(size, inner, strict=True)))

    def wait(self, check: Callable[[], T | None], what: str, timeout: float = PATIENCE) -> T:
        """Wait for something on the page, which may draw itself anew at any time."""

        def patiently() -> T | None:
            try:
                return check()
            except StaleElementReferenceException:
                return None

        return wait_until(patiently, what, timeout, interval=0.1, detail=self.text)

    def text(self) -> str:
        """Return what is to be read on the page."""
        return str(self.driver.execute_script("return document.body ? document.body.innerText : ''"))

    def find(self, xpath: str, what: str) -> WebElement:
        """Wait for the first visible element, at rest: neither moving nor growing."""

        def visible() -> WebElement | None:
            shown = [element for element in self.driver.find_elements(By.XPATH, xpath) if element.is_displayed()]
            return shown[0] if shown and self._at_rest(shown[0]) else None

        return self.wait(visible, what)

    def button(self, name: str) -> WebElement:
        """Wait for a button, tab or link with this name, be it written on it or only told to a screen reader."""
        named = f"(normalize-space()='{name}' or @aria-label='{name}')"
        return self.find(f"//*[(self::button or self::a) and not(@disabled) and {named}]", f"the button {name!r}")

    def press(self, name: str) -> None:
        """Click a button, tab or link as soon as nothing lies over it, such as a notice or a dialog that is closing."""

        def pressed() -> bool:
            try:
                self.button(name).click()
            except ElementClickInterceptedException:
                return False
            return True

        self.wait(pressed, f"the button {name!r} to be free")

    def field(self, label: str) -> WebElement:
        """Wait for the field beside this label."""
        return self.find(_FIELD.format(label), f"the field {label!r}")

    def fill(self, label: str, text: str) -> None:
        """Put a text into a field, in place of what it held."""
        field = self.field(label)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text)
        self.wait(lambda: self.field(label).get_attribute("value") == text, f"{text!r} in the field {label!r}")

    def choose(self, label: str, option: str) -> None:
        """Type into a field that offers a list, and take from it."""
        self.field(label).send_keys(option)
        self.find(f"//*[@role='option' and normalize-space()='{option}']", f"the option {option!r}").click()

    def notice(self, title: str) -> str:
        """Wait for a notice in the corner with this title, and return what it says."""
        look = "return [...document.querySelectorAll('[data-scope=toast][data-part=root]')].map(e => e.innerText)"

        def shown() -> str | None:
            texts = [text.split("\n", 1) for text in self.driver.execute_script(look)]
            return next((text[-1] for text in texts if text[0] == title), None)

        return self.wait(shown, f"the notice {title!r}")

    def hover(self, xpath: str, what: str) -> None:
        """Put the pointer on an element."""
        ActionChains(self.driver).move_to_element(self.find(xpath, what)).perform()

    def follow(self, name: str) -> None:
        """Click a link that opens a window of its own, and go there."""
        before = set(self.driver.window_handles)
        self.press(name)
        (new,) = self.wait(lambda: set(self.driver.window_handles) - before, f"the window {name!r} opens")
        self.driver.switch_to.window(new)

    def picture(self, of: str | None = None, margin: int = 10) -> Image.Image:
        """Return what is to be seen of the page, or of one element on it, as soon as nothing spins any more."""
        busy = """
            return [...document.querySelectorAll('[class*=spinner], [class*=skeleton], [role=progressbar]')]
                .some(element => element.checkVisibility({visibilityProperty: true, opacityProperty: true}))
        """
        self.wait(lambda: not self.driver.execute_script(busy), "an end of loading")
        self.script("document.activeElement.blur()")  # a caret comes and goes
        whole = Image.open(io.BytesIO(self.driver.get_screenshot_as_png()))
        if of is None:
            return whole
        box = self.find(of, "what the picture is of").rect
        left, top = max(0, box["x"] - margin), max(0, box["y"] - margin)
        return whole.crop((left, top, box["x"] + box["width"] + margin, box["y"] + box["height"] + margin))

    def keep(self, name: str) -> str:
        """Write picture, source and complaints of the browser to the folder; return where they are, and the text."""
        try:
            (self.folder / "page.html").write_text(self.driver.page_source)
            (self.folder / "page.png").write_bytes(self.driver.get_screenshot_as_png())
            answer = self.driver.execute("getLog", {"type": "browser"})["value"]
            (self.folder / "console.json").write_text(json.dumps(answer, indent=1))
            where = self.driver.current_url
        except WebDriverException as problem:
            return f"{name}: the browser does not answer: {problem}"
        return f"{name}: {where}\nkept in {self.folder}: page.png, page.html, console.json"

    def _at_rest(self, element: WebElement) -> bool:
        """Tell whether the element stays where it is for three frames."""
        look = """
            const [element, done] = arguments, seen = [];
            const look = () => {
                const box = element.getBoundingClientRect();
                seen.push([box.x, box.y, box.width, box.height].join());
                seen.length < 4 ? requestAnimationFrame(look) : done(new Set(seen).size === 1);
            };
            look();
        """
        return bool(self.driver.execute_async_script(look, element))

    def script(self, code: str) -> Any:
        """Run a script in the page and return its answer."""
        return self.driver.execute_script(code)
