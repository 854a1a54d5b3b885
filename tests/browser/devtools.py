"""Headless Chromium over the DevTools protocol: just what the tests of pages need.

The browser resolves no name and uses no proxy: nothing but loopback is reachable from it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--force-color-profile=srgb",
    "--remote-debugging-port=0",
)
PATIENCE = 60.0
KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Home": (36, ""), "End": (35, ""), "Tab": (9, "")}
KEYS |= {"ArrowLeft": (37, ""), "ArrowUp": (38, ""), "ArrowRight": (39, ""), "ArrowDown": (40, "")}


def find_chromium() -> str | None:
    """The program, or None."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.complaints: list[str] = []
        """Exceptions of scripts, and what the browser refused to load or run."""

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return await self._browser.send(method, self._session, **parameters)

    async def evaluate(self, expression: str) -> Any:
        """The JSON value of an expression; a promise is awaited."""
        answer = await self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, expression: str, seconds: float = PATIENCE) -> Any:
        """Wait inside the page until an expression is true; then its value."""
        script = (
            "new Promise(done => { const look = () => { let value = null;"
            f" try {{ value = ({expression}); }} catch {{ value = null; }}"
            " if (value) done(value); else setTimeout(look, 30); }; look(); })"
        )
        try:
            async with asyncio.timeout(seconds):
                return await self.evaluate(script)
        except TimeoutError:
            text = await self.evaluate("document.body ? document.body.innerText.slice(0, 2000) : ''")
            raise AssertionError(f"never true: {expression}\n{self.complaints}\n{text}") from None

    async def go(self, url: str) -> None:
        answer = await self.send("Page.navigate", url=url)
        assert "errorText" not in answer, answer

    async def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )

    async def prefer(self, scheme: str) -> None:
        """Set the colour scheme: dark or light."""
        await self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def press(self, key: str) -> None:
        code, text = KEYS[key] if key in KEYS else (ord(key.upper()), key)
        named = {"key": key, "windowsVirtualKeyCode": code, "text": text}
        await self.send("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **named)
        await self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    async def type(self, text: str) -> None:
        await self.send("Input.insertText", text=text)

    async def click(self, selector: str) -> None:
        x, y = await self.evaluate(
            f"(() => {{ const r = document.querySelector({selector!r}).getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        await self._press_mouse(x, y)

    async def click_text(self, text: str) -> None:
        """Click what shows just this text; some pages hear presses of the mouse only."""
        x, y = await self.until(
            "[...document.querySelectorAll('body *')].filter(e => !e.children.length && e.textContent.trim()"
            f" === {text!r}).map(e => e.getBoundingClientRect()).filter(r => r.width > 0)"
            ".map(r => [r.x + r.width / 2, r.y + r.height / 2])[0]"
        )
        await self._press_mouse(x, y)

    async def _press_mouse(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            await self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def picture(self, path: Path) -> None:
        """Save what is visible as a PNG."""
        answer = await self.send("Page.captureScreenshot", format="png")
        await asyncio.to_thread(_write, path, base64.b64decode(answer["data"]))

    def hear(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(parameters["entry"]["text"])


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


class Browser:
    """A running Chromium behind one WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}

    async def send(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters}
        await self._socket.send_json(message | ({"sessionId": session} if session else {}))
        try:
            return await asyncio.wait_for(future, PATIENCE)
        finally:
            self._waiting.pop(number, None)

    async def listen(self) -> None:
        async for frame in self._socket:
            message = frame.json()
            future = self._waiting.get(message.get("id", 0))
            if future is not None and not future.done():
                if "error" in message:
                    future.set_exception(AssertionError(str(message["error"])))
                else:
                    future.set_result(message["result"])
            elif "method" in message and message.get("sessionId") in self._pages:
                self._pages[message["sessionId"]].hear(message["method"], message["params"])

    async def open(self, url: str, width: int = 1280, height: int = 800, *, phone: bool = False) -> Page:
        """Open a tab of a size and go to an address."""
        target = await self.send("Target.createTarget", url="about:blank")
        attached = await self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log"):
            await page.send(f"{domain}.enable")
        await page.resize(width, height, phone=phone)
        await page.prefer("light")
        await page.go(url)
        return page


@contextlib.asynccontextmanager
async def run_browser(program: str, profile: Path) -> AsyncIterator[Browser]:
    """Run Chromium while the block runs; it and its children are gone afterwards."""
    process = await asyncio.create_subprocess_exec(
        program,
        *FLAGS,
        f"--user-data-dir={profile}",
        "about:blank",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    tasks: list[asyncio.Task[Any]] = []
    try:
        address = await asyncio.wait_for(_read_address(process.stderr), PATIENCE)
        tasks.append(asyncio.create_task(process.stderr.read()))
        async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
            browser = Browser(socket)
            tasks.append(asyncio.create_task(browser.listen()))
            yield browser
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read_address(stderr: asyncio.StreamReader) -> str:
    heard = b""
    while line := await stderr.readline():
        heard += line
        if found := re.search(rb"DevTools listening on (ws://\S+)", line):
            return found.group(1).decode()
    raise AssertionError(f"Chromium ended: {heard.decode(errors='replace')[-2000:]}")
