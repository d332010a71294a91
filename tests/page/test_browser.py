"""The live page as a person uses it: a real browser, a real agent, real services that call each other."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.agent.process import AgentProcess
from tests.page.browser import REBOUND, Watched, browser
from tests.page.shop import PORT, URL, Shop, shop

WAIT_MS = 30_000
"""Generous: the machine may be busy."""


class Stage:
    """The shop with its customers, a browser on its host, and the agent there."""

    def __init__(self, made: Shop, opened: Browser) -> None:
        self.shop, self.browser = made, opened
        self._agent = contextlib.ExitStack()
        self.running: AgentProcess | None = None

    def start(self) -> None:
        """Starts an agent."""
        self.running = self._agent.enter_context(self.shop.agent())

    def stop(self) -> int:
        """Ends it; its exit code."""
        assert self.running is not None
        code = self.running.stop()
        self._agent.close()
        return code

    def close(self) -> None:
        """Whatever is left."""
        self._agent.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One for all tests: a start takes seconds."""
    folder = tmp_path_factory.mktemp("page")
    with shop(folder) as made, made.customers(0.02), browser(made.host, folder) as opened:
        made_stage = Stage(made, opened)
        made_stage.start()
        yield made_stage
        made_stage.close()


@contextlib.contextmanager
def looked(opened: Browser) -> Iterator[Watched]:
    """The page, live; at its end nothing went wrong in it and it asked nobody else for anything."""
    context = opened.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(WAIT_MS)
    page = Watched(context.new_page())
    page.page.goto(URL)
    expect(page.page.locator("#connection")).to_have_text("live", timeout=WAIT_MS)
    yield page
    context.close()
    assert page.problems == []
    assert page.foreign == []


def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Waits for what the page is about to show."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def times(page: Page) -> list[str]:
    """The time column of the stream."""
    return page.locator("#stream tr:not(.detail) td:first-child").all_inner_texts()


def column(page: Page, number: int) -> list[str]:
    """One column of the stream."""
    return page.locator(f"#stream tr:not(.detail) td:nth-child({number})").all_inner_texts()


def first(page: Page, number: int) -> str:
    """One column of the newest row; empty while there is none."""
    return next(iter(column(page, number)), "")


def test_the_map_the_table_and_the_agent(stage: Stage) -> None:
    """Every service is a node with its rate, every route a row, every watched interface a tap; what fails is marked."""
    with looked(stage.browser) as seen:
        page = seen.page
        for name in ("web", "cart", "catalog", "prices", "rates"):
            expect(page.get_by_role("button", name=re.compile(rf"^shop.{name}: [1-9]"))).to_be_visible(timeout=WAIT_MS)
        expect(page.get_by_role("button", name="customers: asks only")).to_be_visible()
        expect(page.locator("#map path.bad")).not_to_have_count(0)
        expect(page.locator("#red td", has_text="GET /products/{number}").first).to_be_visible(timeout=WAIT_MS)
        broken = page.locator("#red tr.route", has_text="/broken/stock")
        expect(broken.locator("td.bad")).to_have_text("100 %", timeout=WAIT_MS)
        expect(page.locator("#taps tr")).to_have_count(5)
        expect(page.locator("#taps .badge.ok")).to_have_count(5)
        expect(page.locator("#exporters")).to_contain_text("console")
        expect(page.locator("#tile-rate")).to_have_text(re.compile(r"^[1-9][\d.]*/s$"), timeout=WAIT_MS)
        expect(page.locator("#charts .uplot")).to_have_count(2)
        assert page.locator("#red .uplot").count() >= 10


def test_a_workload_is_chosen_by_mouse_and_by_key(stage: Stage) -> None:
    """A click in the map narrows table and charts to it; so does Enter on the focused node; the button shows all again."""
    with looked(stage.browser) as seen:
        page = seen.page
        node = page.get_by_role("button", name=re.compile("^shop.catalog: "))
        node.click(timeout=WAIT_MS)
        expect(page.locator("#charts-title")).to_have_text("shop/catalog")
        expect(page.locator("#red tr.workload")).to_have_count(1)
        expect(node).to_have_attribute("aria-pressed", "true")
        page.get_by_role("button", name="Show all workloads").click()
        expect(page.locator("#charts-title")).to_have_text("All workloads")

        page.get_by_role("button", name=re.compile("^shop.cart: ")).focus()
        page.keyboard.press("Enter")
        expect(page.locator("#charts-title")).to_have_text("shop/cart")
        expect(page.locator("#red tr.workload")).to_contain_text("shop/cart")


def test_the_stream_is_filtered(stage: Stage) -> None:
    """By outcome, by path and by service, each in the agent and not among what happened to be shown."""
    with looked(stage.browser) as seen:
        page = seen.page
        until(lambda: len(times(page)) > 20)
        page.get_by_label("Only", exact=True).select_option("5xx")
        until(lambda: first(page, 6) in ("500", "502"))
        assert set(column(page, 6)) <= {"500", "502"}
        assert page.locator("#stream tr").count() == page.locator("#stream tr.failed").count()

        page.get_by_label("Only", exact=True).select_option("")
        page.get_by_label("Path", exact=True).fill("/products/*")
        until(lambda: len(times(page)) > 2 and first(page, 5).startswith("/products"))
        assert all(path.startswith("/products/") for path in column(page, 5))

        page.get_by_label("Path", exact=True).fill("")
        page.get_by_label("Service", exact=True).fill("rates")
        until(lambda: len(times(page)) > 1 and first(page, 5) == "/slow/rates")
        assert set(column(page, 3)) == {"shop/rates:8080"}


def test_pause_and_detail(stage: Stage) -> None:
    """Pausing stands still and goes on; opening a row pauses and shows the attributes of its span, by keyboard too."""
    with looked(stage.browser) as seen:
        page = seen.page
        until(lambda: len(times(page)) > 5)
        pause = page.get_by_role("button", name="Pause")
        pause.click()
        expect(pause).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#stream-note")).to_have_text("Paused.")
        before = times(page)
        time.sleep(1.5)
        assert times(page) == before

        pause.click()
        until(lambda: times(page) != before)
        page.locator("#exchanges .stream").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        detail = page.locator("#stream tr.detail")
        expect(detail).to_contain_text("http.request.method")
        expect(detail).to_contain_text("waited for")
        expect(pause).to_have_attribute("aria-pressed", "true")


def test_rows_stand_still_under_the_pointer(stage: Stage) -> None:
    """What is pointed at can be clicked; when the pointer leaves, what came meanwhile is there."""
    with looked(stage.browser) as seen:
        page = seen.page
        until(lambda: len(times(page)) > 5)
        page.locator("#exchanges .stream").hover()
        time.sleep(0.5)
        before = times(page)
        time.sleep(1.5)
        held = times(page)
        page.locator("h1").hover()
        until(lambda: times(page) != held)

    assert held == before


def test_it_comes_back_after_a_restart(stage: Stage) -> None:
    """The agent ends: the page says so. Another starts on the same port: the page goes on by itself, with both streams."""
    with looked(stage.browser) as seen:
        page = seen.page
        until(lambda: len(times(page)) > 5)
        code = stage.stop()
        expect(page.locator("#connection")).to_have_attribute("data-state", "gone", timeout=WAIT_MS)
        page.get_by_role("button", name="Clear").click()

        stage.start()
        expect(page.locator("#connection")).to_have_text("live", timeout=WAIT_MS)
        until(lambda: len(times(page)) > 5)
        expect(page.get_by_role("button", name=re.compile("^shop.web: [1-9]"))).to_be_visible(timeout=WAIT_MS)

    assert code == 0


def test_themes(stage: Stage) -> None:
    """Dark and light, by the system or by choice, which is kept; text stands out from what is behind it in both."""
    with looked(stage.browser) as seen:
        page = seen.page
        page.emulate_media(color_scheme="dark")
        assert contrast(page) > 4.5
        dark = background(page)
        page.get_by_label("Theme").select_option("light")
        light = background(page)
        assert contrast(page) > 4.5
        page.reload()
        assert background(page) == light != dark


def test_everything_has_a_name(stage: Stage) -> None:
    """No button, field or image without an accessible name, and every control is reached by the Tab key."""
    with looked(stage.browser) as seen:
        page = seen.page
        expect(page.get_by_role("button", name=re.compile("^shop.web: [1-9]"))).to_be_visible(timeout=WAIT_MS)
        nameless = page.evaluate(NAMELESS)
        reached = set()
        for _ in range(36):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.dataset.node || ''"))

        assert nameless == []
        assert {"theme", "filter-only", "filter-path", "filter-service", "pause", "clear"} <= reached
        assert any(str(one).isdigit() for one in reached), "a node of the map"


def test_text_from_the_wire_is_text(stage: Stage) -> None:
    """A path that is markup is shown as it is and runs nothing."""
    hostile = "/<img/src=x/onerror=document.title='owned'>"
    with looked(stage.browser) as seen:
        page = seen.page
        page.get_by_label("Path", exact=True).fill("onerror")
        with stage.shop.customers(0.05, [hostile]):
            until(lambda: first(page, 5) == hostile)
        assert page.title() == "otel-ebpf-receiver"
        assert page.locator("#stream img").count() == 0


def test_a_name_that_points_here_sees_nothing(stage: Stage) -> None:
    """DNS rebinding, with a real browser that resolves another name to this host."""
    context = stage.browser.new_context()
    page = context.new_page()
    own, rebound = page.goto(URL), page.goto(f"http://{REBOUND}:{PORT}/")
    text = page.locator("body").inner_text()
    context.close()

    assert own is not None
    assert rebound is not None
    assert (own.status, rebound.status) == (200, 403)
    assert "localhost only" in text


def background(page: Page) -> str:
    """The colour behind a card."""
    return str(page.evaluate("getComputedStyle(document.querySelector('#red')).backgroundColor"))


def contrast(page: Page) -> float:
    """The least contrast (WCAG) of texts of each kind on their card."""
    return float(page.evaluate(CONTRAST))


NAMELESS = """() => [...document.querySelectorAll('button, input, select, [role=img], [role=button], [role=region]')]
  .filter((one) => !(one.getAttribute('aria-label') || one.textContent.trim() || one.labels?.length ||
    document.getElementById(one.getAttribute('aria-labelledby'))?.textContent.trim()))
  .map((one) => one.outerHTML.slice(0, 100))"""
CONTRAST = """() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map((one) => one / 255).map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = light(getComputedStyle(document.querySelector('#red')).backgroundColor);
  const probe = document.querySelector('#red').appendChild(document.createElement('span'));
  const found = ['--text', '--soft', '--accent', '--ok', '--some', '--bad'].map((name) => {
    probe.style.color = `var(${name})`;
    const front = light(getComputedStyle(probe).color);
    return (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
  });
  probe.remove();
  return Math.min(...found);
}"""
