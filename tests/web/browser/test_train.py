"""Train in a browser, with a real training of the pocket model: preflight, the page closed in the middle and opened again, paused, gone on with."""

from __future__ import annotations

import re
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from darkroom.pocket import CATS

if TYPE_CHECKING:
    from playwright.sync_api import Page


def field(page: Page, key: str, inner: str = "input") -> Any:
    return page.locator(f'.field[data-path="{key}"] {inner}')


@pytest.fixture
def cats(opened: Any) -> None:
    shutil.copytree(CATS / "train", opened.workspace / "cats")
    shutil.copytree(CATS / "held_out", opened.workspace / "held")


def steps(page: Page) -> int:
    """How many steps the page says were taken."""
    found = re.search(r"step (\d+) of", page.locator("#progress").inner_text())
    return int(found[1]) if found else 0


@pytest.mark.usefixtures("cats")
def test_from_a_recipe_to_a_training_that_outlives_the_page(page: Page, opened: Any) -> None:
    page.goto("/train?recipe=demo")
    field(page, "data.images").fill("cats")
    assert page.locator("#train").is_disabled()
    field(page, "data.subject").fill("TOK cat")
    page.fill("#search", "every")
    field(page, "preview.every").fill("5")
    field(page, "validation.every").fill("10")
    page.fill("#search", "denoising")
    field(page, "preview.steps").fill("4")
    page.fill("#search", "held-out")
    field(page, "validation.pictures").fill("held")
    page.fill("#search", "")
    field(page, "train.length").fill("900")
    page.locator('#preflight[data-state="fine"]').get_by_text("900 steps").wait_for()
    assert "--images cats --subject 'TOK cat'" in page.locator("#command").inner_text()
    page.fill("#name", "mine")
    page.click("#train:enabled")
    page.locator("#run").get_by_text("runs/mine-001").wait_for()
    page.locator("#film .frame").nth(1).wait_for()
    page.goto("about:blank")

    page.goto("/train")
    page.locator("#run").get_by_text("runs/mine-001").wait_for()
    page.locator("#curves").get_by_text("held out").wait_for()
    page.locator("#run").get_by_role("button", name="Pause").click()
    page.locator("#run .badge", has_text="paused").wait_for()
    paused = steps(page)
    assert (opened.workspace / "runs" / "mine-001" / "steps" / f"{paused:06d}" / "adapter.safetensors").is_file()
    page.locator("#run").get_by_role("button", name="Go on").click()
    page.locator("#run .badge", has_text="training").wait_for()
    deadline = time.monotonic() + 300
    while steps(page) <= paused and time.monotonic() < deadline:
        page.wait_for_timeout(200)
    assert steps(page) > paused
    page.locator("#run").get_by_role("button", name="Stop").click()
    page.locator("#run .badge", has_text=re.compile("stopped|interrupted")).wait_for()


@pytest.mark.usefixtures("cats")
def test_the_form_says_what_is_changed_and_what_is_wrong(page: Page) -> None:
    page.goto("/train?recipe=demo&images=cats&subject=TOK%20cat")
    rank = field(page, "method.rank")
    rank.fill("4")
    assert field(page, "method.rank", ".mark").is_visible() and "Recipe: 8" in field(page, "method.rank", ".from").inner_text()
    page.locator("#toml").get_by_text("rank = 4").wait_for()
    field(page, "method.rank", ".reset").click()
    assert rank.input_value() == "8" and not field(page, "method.rank", ".mark").is_visible()

    page.keyboard.press("Escape")
    page.locator("h1").click()
    page.keyboard.press("/")
    page.keyboard.type("min snr")
    assert field(page, "objective.min_snr").is_visible() and not field(page, "objective.noise_offset").is_visible()
    page.fill("#search", "")
    page.locator('.part[data-path="method"] > summary').click()
    field(page, "method.kind", "select").select_option("lycoris")
    field(page, "method.algorithm", "select").select_option("lokr")
    page.locator("#toml").get_by_text('algorithm = "lokr"').wait_for()
    page.locator('.part[data-path="validation"] > summary').click()
    page.locator('.optional[data-path="validation.settle"] > label input').check()
    field(page, "validation.settle.patience").fill("7")
    page.locator("#toml").get_by_text("patience = 7").wait_for()

    field(page, "data.batch_size").fill("0")
    field(page, "data.batch_size", ".wrong").get_by_text("greater than or equal to 1").wait_for()
    assert field(page, "data.batch_size").get_attribute("aria-invalid") == "true" and page.locator("#train").is_disabled()
    field(page, "data.batch_size").fill("2")
    field(page, "data.images").fill("../elsewhere")
    field(page, "data.images", ".wrong").get_by_text("leads upwards").wait_for()
    page.reload()
    page.locator("#first .field").first.wait_for()
    assert field(page, "data.batch_size").input_value() == "2", "what was chosen is there when the page is opened again"
