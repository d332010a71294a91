"""What the live page costs the agent at a steady 5,000 exchanges a second: off, on with nobody looking, one page open, four; and how smooth it is.

    scripts/bench page               or: python benchmarks/page.py [--rounds N] [--seconds N] [--connections N]

Counted is the processor time of the agent's process, all threads, in a window under the load, against the same window without the page. A page
is what a browser opens: both streams, read by curl. The receiver throws everything away.

Then a headless Chromium looks, without load and under it: gaps between the frames that it draws, tasks that hold its main thread for over 50 ms
(the browser's own measure, Long Tasks API), and how long a click on Pause takes until the next frame. The browser draws in software, on the
same CPUs as everything else.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import CDPSession, Page

from benchmarks._stage import SERVER, STATUS_PORT, Stage, agent, exchanges, sink, stage, started
from benchmarks.machine import describe, median, spread
from tests.page.browser import browser

OFF = "page off"
VARIANTS = {OFF: ("false", 0), "page on, nobody looks": ("true", 0), "one page open": ("true", 1), "four pages open": ("true", 4)}
PAUSE_MS = 10
"""Each connection of wrk waits so long before it asks again."""
SETTLE_S = 2.0
CLICKS = 10
WATCH = """() => {
  window.seen = {gaps: [], tasks: []};
  new PerformanceObserver((list) => seen.tasks.push(...list.getEntries().map((one) => one.duration))).observe({type: "longtask"});
  let last = performance.now();
  const frame = () => { const now = performance.now(); seen.gaps.push(now - last); last = now; requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
}"""
CLICK = """() => new Promise((done) => {
  const start = performance.now();
  document.querySelector("#pause").click();
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
})"""


@dataclass(frozen=True, slots=True)
class Spent:
    """Of one round."""

    percent: float
    per_s: float


@contextlib.contextmanager
def paced(where: Stage, seconds: float, connections: int) -> Iterator[None]:
    """A steady load for about so long."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "pace.lua"
        script.write_text(f"function delay() return {PAUSE_MS} end\n")
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "-s", str(script), f"http://{SERVER}/api/v1/users/123"]
        with started(where.host.command(*command)):
            yield


def once(where: Stage, page: str, viewers: int, options: argparse.Namespace) -> Spent:
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(agent(where, env={"OTEL_EBPF_RECEIVER_STATUS_PAGE": page}))
        for path in ("state", "exchanges") * viewers:
            command = where.host.command("curl", "-sN", "-o", "/dev/null", f"http://127.0.0.1:{STATUS_PORT}/page/{path}")
            reader = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            stack.callback(reader.wait)
            stack.callback(reader.kill)
        stack.enter_context(paced(where, options.seconds + 2 * SETTLE_S + 5, options.connections))
        time.sleep(SETTLE_S)
        counted, cpu_s, start_s = exchanges(where), running.cpu_s(), time.monotonic()
        time.sleep(options.seconds)
        cpu_s, elapsed_s = running.cpu_s() - cpu_s, time.monotonic() - start_s
        return Spent(100 * cpu_s / elapsed_s, (exchanges(where) - counted) / elapsed_s)


@dataclass(frozen=True, slots=True)
class Felt:
    """What somebody who looks at the page notices. Milliseconds; `gaps` between frames, `tasks` over 50 ms, `clicks` to the next frame but one; `busy`
    is the processor time of the browser's main thread, of a core.
    """

    gaps: list[float]
    tasks: list[float]
    clicks: list[float]
    busy: float
    per_s: float

    def __str__(self) -> str:
        gaps = sorted(self.gaps)
        over = sum(gap > 100 for gap in gaps)
        return (
            f"{1000 * len(gaps) / sum(gaps):5.1f} frames/s; between two {gaps[len(gaps) // 2]:.0f} ms, 99 % {gaps[len(gaps) * 99 // 100]:.0f}, "
            f"longest {gaps[-1]:.0f}, {over} over 100; {len(self.tasks)} tasks over 50 ms, longest {max(self.tasks, default=0):.0f}; "
            f"main thread {self.busy:.0%} of a core; a click {median(self.clicks):.0f} (longest {max(self.clicks):.0f}); {self.per_s:,.0f} exchanges/s"
        )


def thread_s(session: CDPSession) -> float:
    """Processor time that the page's main thread has taken since the session was opened."""
    return float(next(one["value"] for one in session.send("Performance.getMetrics")["metrics"] if one["name"] == "ThreadTime"))


def felt(where: Stage, page: Page, seconds: float) -> Felt:
    """Of a page that is open, for so long."""
    page.reload()
    page.locator("#connection", has_text="live").wait_for()
    time.sleep(SETTLE_S)
    page.evaluate(WATCH)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    counted, spent_s, start_s = exchanges(where), thread_s(session), time.monotonic()
    time.sleep(seconds)
    elapsed_s = time.monotonic() - start_s
    busy, per_s = (thread_s(session) - spent_s) / elapsed_s, (exchanges(where) - counted) / elapsed_s
    seen = page.evaluate("seen")
    clicks = [float(page.evaluate(CLICK)) for _ in range(CLICKS)]
    return Felt(seen["gaps"], seen["tasks"], clicks, busy, per_s)


def look(where: Stage, options: argparse.Namespace) -> dict[str, Felt]:
    """A browser at the page of one agent, before the load and under it."""
    seconds = 3.0 * options.seconds
    with (
        tempfile.TemporaryDirectory() as folder,
        agent(where, env={"OTEL_EBPF_RECEIVER_STATUS_PAGE": "true", "OTEL_EBPF_RECEIVER_TELEMETRY_TEMPLATING_ENABLED": "true"}),
        browser(where.host, Path(folder)) as opened,
    ):
        page = opened.new_page(viewport={"width": 1400, "height": 900})
        page.goto(f"http://127.0.0.1:{STATUS_PORT}/")
        found = {"without load": felt(where, page, seconds)}
        with paced(where, seconds + 3 * SETTLE_S + 5, options.connections):
            found["under load"] = felt(where, page, seconds)
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=8)
    arguments.add_argument("--connections", type=int, default=56)
    options = arguments.parse_args()
    print(describe())
    found: dict[str, list[Spent]] = {variant: [] for variant in VARIANTS}
    with stage() as where, sink(where):
        for _ in range(options.rounds):
            for variant, (page, viewers) in VARIANTS.items():
                found[variant].append(once(where, page, viewers, options))
        smooth = look(where, options)
    print(f"\n% of a core that the agent takes, medians of {options.rounds} alternated rounds of {options.seconds} s")
    base = median([one.percent for one in found[OFF]])
    for variant, rounds in found.items():
        percent = [one.percent for one in rounds]
        print(
            f"{variant:24}{median(percent):6.1f} ({min(percent):.1f}..{max(percent):.1f})  {median(percent) - base:+5.1f}; "
            f"{spread([one.per_s for one in rounds])} exchanges/s"
        )
    print(f"\nin a browser, {3 * options.seconds} s each")
    for when, one in smooth.items():
        print(f"{when:14}{one}")


if __name__ == "__main__":
    main()
