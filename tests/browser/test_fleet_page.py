"""The page of a fleet in a real browser: states told by word and sign, live, by keyboard, on a phone, safe."""

from __future__ import annotations

from pathlib import Path

import pytest
from devtools import Browser, Page
from made_fleet import HOSTILE, SICK, make_fleet, make_status, name_of, serve_page

from konverge.model.proxy import Phase

pytestmark = pytest.mark.slow
READY = "document.querySelectorAll('#proxies li').length === {count} && document.querySelector('.link.live')"
TILE = "(tiles.get('{name}') || null)"


async def show(browser: Browser, url: str, count: int, width: int = 1280, height: int = 800) -> Page:
    page = await browser.open(url, width, height, phone=width < 500)
    await page.until(READY.format(count=count))
    return page


def tile(number: int) -> str:
    return TILE.format(name=name_of(number))


async def test_states_are_told_by_word_and_sign_and_live(browser: Browser, pictures: Path) -> None:
    fleet = make_fleet(40, sick=1)
    async with serve_page(fleet) as (url, _):
        page = await show(browser, url, 40)
        for state in SICK:
            found = await page.evaluate(
                f"[...document.querySelectorAll('.state')].filter(s => s.innerText.includes('{state}')).length"
            )
            assert found == 1, state
        assert await page.evaluate("document.querySelector('#fleet').innerText") == "gateways/shop"
        assert "revision 12, last good 12, 40 proxies" in await page.evaluate(
            "document.querySelector('#summary').innerText"
        )
        await page.picture(pictures / "fleet-page.png")
        fleet.proxies[name_of(0)] = make_status(0, **SICK["Quarantined"])
        await page.until(f"{tile(0)}.innerText.includes('\\u25B2 Quarantined')")
        await page.until(f"document.querySelector('#news').innerText.includes('{name_of(0)} Quarantined')")
        del fleet.proxies[name_of(1)]
        await page.until(f"{tile(1)} === null")
        fleet.proxies["new"] = make_status(99, pod="new")
        await page.until(TILE.format(name="new"))
        await page.prefer("dark")
        await page.click(f"li[data-name='{name_of(0)}']")
        await page.until("document.querySelector('#details-message').innerText.includes('connection refused')")
        await page.picture(pictures / "fleet-page-dark.png")
        assert page.complaints == []


async def test_keyboard_alone_reaches_everything(browser: Browser) -> None:
    async with serve_page(make_fleet(30, sick=1)) as (url, _):
        page = await show(browser, url, 30)
        focus = "document.activeElement.dataset.name"
        await page.evaluate("document.querySelector('#proxies li[tabindex=\"0\"]').focus()")
        await page.press("ArrowRight")
        assert await page.evaluate(focus) == name_of(1)
        columns = await page.evaluate("columnsOf(shownTiles())")
        assert columns > 2
        await page.press("ArrowDown")
        assert await page.evaluate(focus) == name_of(1 + columns)
        await page.press("ArrowUp")
        await page.press("ArrowLeft")
        assert await page.evaluate(focus) == name_of(0)
        await page.press("ArrowLeft")
        assert await page.evaluate(focus) == name_of(0)
        await page.press("End")
        assert await page.evaluate(focus) == name_of(29)
        await page.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "details"
        assert await page.evaluate("document.querySelector('#details-name').innerText") == name_of(29)
        await page.press("Escape")
        assert await page.evaluate("document.querySelector('#details').hidden")
        assert await page.evaluate(focus) == name_of(29)
        outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        assert await page.evaluate("document.querySelectorAll('#proxies li[tabindex=\"0\"]').length") == 1
        await page.press("/")
        await page.type("connection refused")
        await page.until("shownTiles().length === 1")
        assert await page.evaluate("document.querySelector('#query').value") == "connection refused"
        await page.press("Tab")
        assert await page.evaluate("document.activeElement.innerText.includes('Serving')")
        await page.press("Enter")
        await page.until("!document.querySelector('#empty').hidden")
        assert page.complaints == []


async def test_a_phone_of_360_pixels_scrolls_in_one_direction_only(browser: Browser, pictures: Path) -> None:
    fleet = make_fleet(24, sick=1)
    fleet.proxies["a" * 200] = make_status(500, message="m" * 900, reason="R" * 80, phase=Phase.QUARANTINED)
    async with serve_page(fleet) as (url, _):
        page = await show(browser, url, 25, 360, 740)
        await page.picture(pictures / "fleet-page-phone.png")
        fits = "document.documentElement.scrollWidth <= 360"
        assert await page.evaluate(fits)
        await page.evaluate("document.querySelector('#proxies li').click()")
        await page.until("!document.querySelector('#details').hidden")
        assert await page.evaluate(fits)
        inside = "(() => { const r = document.querySelector('#details').getBoundingClientRect();"
        assert await page.evaluate(inside + " return r.left >= 0 && r.right <= 360; })()")


async def test_hostile_text_stays_text(browser: Browser) -> None:
    fleet = make_fleet(2)
    fleet.proxies[name_of(0)] = make_status(
        0, message=HOSTILE, reason=HOSTILE, node=HOSTILE, hint=HOSTILE, phase=Phase.QUARANTINED, traffic_ready=False
    )
    fleet.proxies[HOSTILE] = make_status(7, pod=HOSTILE)
    fleet.error = HOSTILE
    fleet.last_run = "javascript:document.title='owned'"
    async with serve_page(fleet) as (url, _):
        page = await show(browser, url, 3)
        await page.evaluate(f"{tile(0)}.click()")
        await page.until("!document.querySelector('#details').hidden")
        assert HOSTILE in await page.evaluate("document.querySelector('#details-message').textContent")
        assert (
            await page.evaluate(
                "document.querySelectorAll('main img, main script, header img, a[href^=javas]').length"
            )
            == 0
        )
        await page.evaluate(
            "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">'),"
            " new Promise(done => document.body.lastChild.addEventListener('error', () => done(1)))"
        )
        assert "shop" in await page.evaluate("document.title"), "the policy stops what slipped through"


async def test_three_hundred_proxies_change_without_jank(browser: Browser, pictures: Path) -> None:
    fleet = make_fleet(300, sick=5)
    async with serve_page(fleet) as (url, board):
        page = await show(browser, url, 300)
        await page.picture(pictures / "fleet-page-300.png")
        await page.evaluate(
            "window.longest = 0; (() => { const take = takeChange; takeChange = (...words) => {"
            " const start = performance.now(); take(...words); document.body.offsetHeight;"
            " window.longest = Math.max(window.longest, performance.now() - start); }; })()"
        )
        for number in range(300):
            fleet.proxies[name_of(number)] = make_status(number, loaded_revision=13, desired_revision=13)
        await page.until("[...document.querySelectorAll('.facts')].every(f => f.innerText.startsWith('revision 13'))")
        longest = await page.evaluate("window.longest")
        print(f"300 tiles redrawn and laid out in {longest:.0f} ms")
        assert longest < 2000, "generous: a loaded machine; about 40 ms on a quiet one"
        assert len(board.readers) == 1
        assert page.complaints == []


async def test_a_lost_connection_is_told_and_taken_up(browser: Browser) -> None:
    fleet = make_fleet(3)
    async with serve_page(fleet) as (url, board):
        page = await show(browser, url, 3)
        await page.evaluate(
            "window.lost = new Promise(done => new MutationObserver(() => {"
            " if (document.querySelector('.link.lost')) done(1); }).observe(document.body,"
            " {subtree: true, childList: true, attributes: true})); 0"
        )
        board.close()
        assert await page.evaluate("window.lost") == 1
        fleet.proxies[name_of(2)] = make_status(2, **SICK["Drifted"])
        await page.until(f"document.querySelector('.link.live') && {tile(2)}.innerText.includes('Drifted')")
