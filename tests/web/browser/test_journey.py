"""The whole way in a browser: the demo's pictures dropped in, an adapter trained while the page is closed and opened again, a picture drawn with it, a trial,
ten pairs rated blind, and the report that says what came of all of it. Real jobs of the pocket model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.data.manifest import Manifest
from darkroom.evidence.answers import answers_file, read_answers
from darkroom.pocket import CATS
from darkroom.sampling.request import read_request
from support.dropping import drop

if TYPE_CHECKING:
    from playwright.sync_api import Page

PROMPTS = [f"TOK cat on {place}" for place in ("a red background", "a blue sea", "a green meadow", "a white wall", "a yellow field")]


def test_from_pictures_to_a_report(page: Page, opened: Any) -> None:
    home = Path(opened.workspace)
    _pictures(page, home)
    _training(page, home)
    _drawing(page, home)
    _trial(page, home)
    _rating(page, home)


def _pictures(page: Page, home: Path) -> None:
    page.goto("/pictures")
    page.wait_for_selector(".drop")
    drop(page, sorted((CATS / "train").iterdir()))
    page.fill("#bring-name", "cats")
    page.fill("#bring-smallest", "64")
    page.keyboard.press("Tab")
    page.click("#bring-go")
    page.locator(".pick").nth(5).wait_for()
    page.keyboard.press("a")
    page.keyboard.press("k")
    page.get_by_text("6 pictures: kept").wait_for()
    assert [row.overruled for row in Manifest.open(home / "datasets" / "cats").rows] == ["keep"] * 6


def _training(page: Page, home: Path) -> None:
    def field(key: str) -> Any:
        return page.locator(f'.field[data-path="{key}"] input')

    page.get_by_role("link", name="Train on these").click()
    page.locator("#recipe").select_option("demo")
    field("data.subject").fill("TOK cat")
    assert field("data.images").input_value() == "datasets/cats"
    field("train.length").fill("80")
    page.locator('#preflight[data-state="fine"]').get_by_text("80 steps").wait_for()
    page.fill("#name", "cat")
    page.click("#train:enabled")
    page.locator("#run").get_by_text("runs/cat-001").wait_for()
    page.goto("about:blank")
    page.goto("/train")
    page.locator("#run").get_by_text("runs/cat-001").wait_for()
    page.locator("#run .badge", has_text="finished").wait_for()
    assert (home / "runs" / "cat-001" / "TOK.safetensors").is_file() or list((home / "runs" / "cat-001").glob("*.safetensors"))


def _drawing(page: Page, home: Path) -> None:
    page.locator("#run").get_by_role("link", name="Draw with it").click()
    page.locator(".worn").wait_for()
    page.fill("#prompt", "TOK cat on a red background")
    page.fill("#steps", "10")
    page.click("#draw")
    page.locator("#history .tile").wait_for()
    (picture,) = (home / "pictures").glob("*.png")
    request = read_request(picture)
    assert request.prompt == "TOK cat on a red background" and [worn.file.startswith("runs/cat-001/") for worn in request.adapters] == [True]


def _trial(page: Page, home: Path) -> None:
    page.goto("/compare?run=runs/cat-001")
    page.locator("#maker[open]").wait_for()
    page.get_by_label("What is asked").fill("Did it learn the cat?")
    page.get_by_label("Prompts").fill("\n".join(PROMPTS))
    page.get_by_label("Seeds").fill("2")
    page.get_by_label("Steps").fill("8")
    page.get_by_role("button", name="Draw and compare").click()
    page.locator("#stage h2", has_text="Did it learn the cat?").wait_for()
    page.locator("iframe.report").wait_for()
    told = json.loads((home / "trials" / "did-it-learn-the-cat" / "trial.json").read_text())
    assert len(told["pictures"]) == 20 and not told["faults"]


def _rating(page: Page, home: Path) -> None:
    trial = home / "trials" / "did-it-learn-the-cat"
    page.locator("#rate").click()
    page.fill("#rater", "ann")
    page.fill("#pairs", "10")
    page.get_by_role("button", name="Begin").click()
    for number in range(11):
        page.get_by_text(f"{number + 1} of 11").wait_for()
        page.keyboard.press(("ArrowLeft", "ArrowRight", "ArrowDown")[number % 3])
    page.locator("#rating pre", has_text="ann: 11 answers").wait_for()
    page.get_by_role("button", name="To the trial").click()
    page.locator("#ratings").get_by_text("Bradley-Terry").wait_for()
    report = page.frame_locator("iframe.report")
    report.get_by_text(re.compile("rated|prefer", re.IGNORECASE)).first.wait_for()
    assert len(read_answers(answers_file(trial, "ann")).standing) == 11
    assert "ann" in (trial / "report.html").read_text(encoding="utf-8")
