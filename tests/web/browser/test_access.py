"""All five pages and their dialogs for people with a keyboard, a screen reader, little sight or a small screen: light and dark, at 1280 and at 390 px."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.contents import furnish

if TYPE_CHECKING:
    from playwright.sync_api import Page

AUDIT = Path(__file__).with_name("audit.js")
SIZES = {"wide": (1280, 800), "narrow": (390, 844)}
MOST = 70
"""Presses of Tab on one page: Train's form alone has some hundred fields."""
PREFLIGHT = {
    "steps": 40, "epochs": 7, "pictures": 6, "batch_size": 6, "accumulate": 1, "held_out": 2, "masked": 1, "upscaled": 1, "smaller_bucket": 1, "prior": None,
    "remarks": ["No validation pictures: the best step is told by the loss alone."], "memory_mib": {"weights": 300.0, "activations": 900.0, "total": 1200.0},
    "captions": [{"file": "a.png", "caption": "a photo of TOK cat", "tokens": 7, "cut": False}, {"file": "b.png", "caption": "long", "tokens": 90,
        "cut": True}],
    "buckets": [{"width": 64, "height": 64, "pictures": 6, "batches": [6], "cut_away": 0.1}],
}  # fmt: skip
DIALOGS: dict[str, tuple[tuple[str, str], ...]] = {
    "/train?recipe=recipes/mine.toml": (("#bring", "#bringing"), ("#keep", "#keeping")),
    "/train?run=runs/one": ((".shot", "dialog.enlarged"),),
    "/compare": (("#new", "#maker"), ("#rate", "#rating")),
}
"""By page: what opens a dialog, and the dialog."""
LIVE = {
    "/pictures": "#tally",
    "/train": "#preflight",
    "/draw": "#stage [role=status], #stage[aria-live]",
    "/compare": "#stage[aria-live]",
    "/runs": "#toasts[aria-live]",
}


@pytest.fixture
def told(opened: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A workspace with content, a queue with orders of each kind that starts nothing; findings are gathered, and told at the end."""
    furnish(opened.workspace)

    async def ask(_: Any, argv: list[str], longest: float = 0) -> dict[str, Any]:
        return {"preflight": PREFLIGHT} if "--check" in argv else {"path": argv[-1], "layout": "kohya", "kind": "lora", "size": 192, "sha256": "c" * 64}

    for page in ("train", "runs"):
        monkeypatch.setattr(f"darkroom.web.pages.{page}.ask", ask)
    line = opened.studio.line
    line.starts = False
    for state in ("waiting", "failed", "done", "paused"):
        id = opened.studio.put(f"An order that is {state}", ["dataset", "show", "datasets/cats"], "pictures", "cpu")["order"]
        if state != "waiting":
            line.shelf.change(line.shelf.find(id), state=state, began=time.time() - 9, ended=time.time(), message="What there is to say of it.")
    found: list[str] = []
    yield found
    assert found == [], "\n" + "\n".join(found)


def audit(page: Page, told: list[str], what: str) -> None:
    """Light and dark, wide and narrow, as it stands."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        for size, (width, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            for _ in range(100):  # a list that is laid out anew for the width has a moment for it; wait_for_function would break the page's own policy
                if page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
                    break
                page.wait_for_timeout(100)
            for kind, element, value in page.evaluate("audited.audit()"):
                told.append(f"{what}, {scheme}, {size}: {kind}: {element}: {value}")
    page.set_viewport_size({"width": 1280, "height": 800})
    page.emulate_media(color_scheme="light")


def tab_through(page: Page, told: list[str], what: str) -> None:
    """Every element that Tab comes to shows that it has the focus, and Tab comes to all."""
    count = page.evaluate("document.activeElement.blur(), audited.unfocused()")
    for _ in range(min(MOST, count + 2)):
        page.keyboard.press("Tab")
        at = page.evaluate("audited.focused()")
        if at and not at["shown"]:
            told.append(f"{what}: no visible focus: {at['name']}")
    if count <= MOST:
        told.extend(f"{what}: not reached by Tab: {name}" for name in page.evaluate("audited.unreached()"))


def dialog(page: Page, told: list[str], what: str, open: Callable[[], Any], selector: str) -> None:
    """It takes the focus, holds up to the audit, and gives the focus back when Escape closes it."""
    page.evaluate("document.activeElement.blur()")
    open()
    page.locator(f"{selector}[open]").wait_for()
    if not page.evaluate("audited.inside()"):
        told.append(f"{what}: {selector} does not take the focus")
    audit(page, told, f"{what} {selector}")
    tab_through(page, told, f"{what} {selector}")
    page.keyboard.press("Escape")
    page.locator(f"{selector}[open]").wait_for(state="detached")


def visit(page: Page, address: str, ready: str) -> None:
    page.goto(address)
    page.locator(ready).first.wait_for()
    page.wait_for_load_state("networkidle")
    page.evaluate(AUDIT.read_text(encoding="utf-8"))


def by_keyboard(page: Page, told: list[str], what: str, button: Any, selector: str) -> None:
    """A dialog that a button opens gives the focus back to it."""
    dialog(page, told, what, lambda: (button.focus(), page.keyboard.press("Enter")), selector)
    if not button.evaluate("(node) => document.activeElement === node"):
        told.append(f"{what}: {selector} gives the focus back to {page.evaluate('audited.at()')}")


PAGES = {
    "/pictures": ".tile, #home *",
    "/pictures?dataset=datasets/cats": "#view *",
    "/train?recipe=recipes/mine.toml": '#preflight[data-state="fine"]',
    "/train?run=runs/one": "#film .frame",
    "/draw": "#history .tile",
    "/compare": "#rate",
    "/runs?run=runs/one": "#detail h2",
    "/runs?adapter=adapters/thor.safetensors": "#detail h2",
}


def test_every_page_by_keyboard_and_by_ear(page: Page, told: list[str]) -> None:
    for address, ready in PAGES.items():
        visit(page, address, ready)
        audit(page, told, address)
        tab_through(page, told, address)
        for button, selector in DIALOGS.get(address, ()):
            by_keyboard(page, told, address, page.locator(button).first, selector)


def test_dialogs_of_the_frame_and_of_draw(page: Page, told: list[str], opened: Any) -> None:
    visit(page, "/draw", "#history .tile")
    by_keyboard(page, told, "the frame", page.locator("#keys-button"), "#keys")
    page.locator("#queue-button").focus()
    page.keyboard.press("Enter")
    page.locator("#queue-panel .job").first.wait_for()
    audit(page, told, "the queue")
    page.keyboard.press("Tab")
    before = page.evaluate("audited.at()")
    page.wait_for_timeout(2200)  # it is drawn anew meanwhile
    if (after := page.evaluate("audited.at()")) != before:
        told.append(f"the queue: the focus goes from {before} to {after} when it is drawn anew")
    page.keyboard.press("Escape")
    if page.evaluate("document.activeElement.id") != "queue-button":
        told.append(f"the queue gives the focus back to {page.evaluate('audited.at()')}")
    by_keyboard(page, told, "/draw", page.locator("#history .tile").first, "#viewer")
    page.locator("#history .tile").first.focus()
    page.keyboard.press("Enter")
    for number in (1, 2):
        page.keyboard.press("ArrowRight")
        page.locator("#viewer").get_by_text(f"a cat, the {4 - number}th").wait_for()
    page.get_by_role("button", name="As start picture").click()
    page.get_by_text("Drag an edge").wait_for()
    audit(page, told, "/draw with a start picture")
    tab_through(page, told, "/draw with a start picture")
    paint = page.locator("#paint")
    dialog(page, told, "/draw", lambda: (paint.focus(), page.keyboard.press("Enter"), page.locator("canvas[data-ready]").wait_for()), "#painter")
    shutil.rmtree(opened.workspace / "uploads", ignore_errors=True)
    visit(page, "/compare", "#rate")
    dialog(page, told, "/compare, shipped", lambda: (page.locator("#new").press("Enter"), page.locator("#shipped").press("Enter")), "#maker")


def test_results_are_said_and_nothing_moves_where_that_is_not_wanted(page: Page, told: list[str]) -> None:
    page.emulate_media(reduced_motion="reduce")
    for address, live in LIVE.items():
        visit(page, address, "h1")
        if not page.locator(live).count():
            told.append(f"{address}: no live region where its results come ({live})")
        page.evaluate("document.querySelector('#queue-button').classList.add('busy')")
        if moving := page.evaluate("document.getAnimations().filter((one) => one.playState === 'running').length"):
            told.append(f"{address}: {moving} animations go on although none is wanted")


@pytest.mark.usefixtures("told")
def test_what_is_drawn_anew_keeps_the_focus(page: Page) -> None:
    visit(page, "/runs?adapter=adapters/thor.safetensors", "#detail h2")
    page.get_by_label("Merge adapters/loki.safetensors").focus()
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.value") == "adapters/loki.safetensors"
    visit(page, "/compare", "#rate")
    page.locator("#trials .entry").focus()
    page.keyboard.press("Enter")
    page.wait_for_load_state("networkidle")
    assert "trials/one" in page.evaluate("document.activeElement.innerText")
