"""Twenty pages open at once, while a training runs on the same machine: the studio goes on answering."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from darkroom.jobs.queue import Command
from darkroom.pocket import CATS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PAGES = ("pictures", "train", "draw", "compare", "runs")


def test_twenty_pages_stay_responsive_while_training(browser: Browser, opened: Any) -> None:
    argv = ("train", "demo", "--images", str(CATS / "train"), "--subject", "TOK cat", "--out", "runs/cat", "--set", 'train.length="3000 steps"')
    order = opened.studio.line.put(Command(argv=argv))
    context = browser.new_context(base_url=opened.address)
    pages: list[Page] = []
    for number in range(20):
        page = context.new_page()
        page.goto(f"/{PAGES[number % 5]}")
        page.locator("h1").wait_for()
        pages.append(page)
    deadline = time.monotonic() + 120
    while (job := opened.studio.line.look(order))["progress"] is None and job["state"] in ("waiting", "running") and time.monotonic() < deadline:
        time.sleep(0.2)
    waited = sorted(answered(page) for _ in range(3) for page in pages)
    state = opened.studio.line.look(order)["state"]
    context.close()
    assert state == "running", "the training must have gone on meanwhile"
    print(f"milliseconds until an answer: median {waited[30]:.0f}, 95 % {waited[56]:.0f}, slowest {waited[-1]:.0f}")
    assert waited[30] < 250 and waited[56] < 2000


def answered(page: Page) -> float:
    """Milliseconds from asking for the jobs to having them, as the page sees it."""
    return float(
        page.evaluate("async () => { const began = performance.now(); await (await fetch('/api/jobs?limit=30')).json(); return performance.now() - began; }")
    )
