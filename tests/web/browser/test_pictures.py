"""Pictures in a real browser: cats dropped in, looked through by key, captioned one by one and all at once, and nothing lost between two pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom import pocket
from darkroom.data.manifest import Manifest, Row
from support.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

CATS = sorted(pocket.CATS.rglob("*.png")) + sorted(pocket.CATS.rglob("*.txt"))
DROP = """
(files) => {
  const transfer = new DataTransfer();
  for (const [name, data] of files) transfer.items.add(new File([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], name));
  const drop = document.querySelector(".drop");
  for (const kind of ["dragover", "drop"]) drop.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
}
"""


def tile(page: Page, file: str) -> Any:
    return page.locator(f'.pick[data-file="{file}"]')


def test_nine_cats_from_the_drop_to_their_captions(page: Page, opened: Any) -> None:
    import base64

    page.goto("/pictures")
    page.wait_for_selector(".drop")
    bad = ("broken.png", base64.b64encode(b"no picture").decode())
    page.evaluate(DROP, [*((path.name, base64.b64encode(path.read_bytes()).decode()) for path in CATS), bad])
    assert "10 pictures, 6 caption files" in page.locator("#bring-name").locator("xpath=ancestor::section").inner_text()
    page.fill("#bring-name", "nine cats")
    page.fill("#bring-smallest", "64")
    page.keyboard.press("Tab")
    page.click("#bring-go")
    page.wait_for_selector("text=1 file refused")
    assert "broken.png" in page.locator(".note.warn").inner_text()
    page.click("text=Open nine cats")
    page.wait_for_selector(".pick")
    folder = Path(opened.workspace) / "datasets" / "nine cats"

    def rows() -> dict[str, Row]:
        return {row.file.rpartition("/")[2]: row for row in Manifest.open(folder).rows}

    assert len(rows()) == 9
    assert until(lambda: page.locator(".pick").count() == 9)
    names = [row.file for row in Manifest.open(folder).rows]
    _by_key(page, names, rows)
    _many(page, rows)
    _two_pages(page, names[0], rows)
    until(lambda: not any((opened.workspace / ".darkroom" / "taken").iterdir()))


def _by_key(page: Page, names: list[str], rows: Callable[[], dict[str, Row]]) -> None:
    """The third is kept, it and the two after it are rejected, one of them is taken back in the close look."""
    short = [name.rpartition("/")[2] for name in names]
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    tile(page, names[2]).and_(page.locator('[aria-selected="true"]')).wait_for()
    page.keyboard.press("k")
    tile(page, names[2]).locator("text=kept, by you").wait_for()
    assert [name for name, row in rows().items() if row.overruled == "keep"] == [short[2]]
    for _ in range(2):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("r")
    tile(page, names[4]).locator("text=rejected, by you").wait_for()
    assert [name for name, row in rows().items() if row.overruled == "reject"] == short[2:5]
    page.keyboard.press("Enter")
    page.wait_for_selector("#look[open]")
    page.keyboard.press("ArrowLeft")
    page.locator("#look h2", has_text=short[3]).wait_for()
    page.keyboard.press("u")
    until(lambda: not rows()[short[3]].overruled)
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.locator("#chosen").wait_for(state="hidden")


def _many(page: Page, rows: Callable[[], dict[str, Row]]) -> None:
    """All captions at once, after a look at what would change; those that were there stay under their own name."""
    page.click("#tab-captions")
    page.wait_for_selector(".entry")
    page.locator('[aria-label="How"]').select_option("set")
    page.fill('[aria-label="Text"]', "TOK cat, drawn")
    page.click("text=Look at what changes")
    page.wait_for_selector("text=9 captions of 9 would change")
    assert page.locator(".change").count() == 9
    page.click("text=Change them")
    page.wait_for_selector("text=9 captions changed")
    assert {row.caption for row in rows().values()} == {"TOK cat, drawn"}
    assert sum("original" in row.captions for row in rows().values()) == 6


def _two_pages(page: Page, first: str, rows: Callable[[], dict[str, Row]]) -> None:
    """Another page writes a caption while this one is typed; the person is told, and what they decide holds. Tokens are counted as they type."""
    field = page.locator(f'textarea[aria-label="Caption of {first}"]')
    name = first.rpartition("/")[2]
    other = page.context.new_page()
    other.goto(page.url)
    there = other.locator(f'textarea[aria-label="Caption of {first}"]')
    there.wait_for()
    field.click()
    page.keyboard.press("End")
    page.keyboard.type(" w" * 80, delay=0)
    entry = page.locator(".entry", has=field)
    entry.locator("text=84 of 75 tokens").wait_for()
    until(lambda: rows()[name].caption.endswith("w w"))
    there.fill("from the other page")
    there.press("Control+Enter")
    other.locator("text=It was changed meanwhile").wait_for()
    assert rows()[name].caption.endswith("w w")
    other.click("text=Keep mine")
    until(lambda: rows()[name].caption == "from the other page")
    other.close()
