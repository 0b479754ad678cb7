"""Compare in a browser: a blind rating by keyboard to its end, in which the page never learns which arm is which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.ratings import finished

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_a_blind_rating_by_keyboard(page: Page, opened: Any) -> None:
    (opened.workspace / "trials" / "one").mkdir(parents=True)
    finished(opened.workspace / "trials" / "one")
    heard: list[str] = []
    page.goto("/compare")
    page.get_by_text("likeness: better.").wait_for()
    page.on("response", lambda answer: heard.append(answer.text()) if "/rate/" in answer.url and "publish" not in answer.url else None)
    page.keyboard.press("b")
    page.fill("#rater", "ann")
    page.fill("#pairs", "10")
    page.keyboard.press("Enter")
    for number, key in enumerate(["ArrowLeft", "ArrowRight", "ArrowDown", "1", "2", " ", "ArrowLeft", "ArrowLeft", "ArrowRight", "ArrowLeft", "ArrowLeft"]):
        page.get_by_text(f"{number + 1} of 11").wait_for()
        page.keyboard.press(key)
    page.get_by_text("Thank you").wait_for()
    page.get_by_text("ann: 11 answers").wait_for()
    page.keyboard.press("Enter")
    page.locator("#ratings").get_by_text("Bradley-Terry").wait_for()
    assert len(heard) == 12 and not any(word in text for text in heard for word in ("adapter-9", "plain", "pictures/"))


def test_back_takes_the_last_answer_back(page: Page, opened: Any) -> None:
    (opened.workspace / "trials" / "one").mkdir(parents=True)
    finished(opened.workspace / "trials" / "one")
    page.goto("/compare?trial=trials/one")
    page.get_by_role("button", name="Rate blind").click()
    page.fill("#rater", "bob")
    page.fill("#pairs", "4")
    page.get_by_role("button", name="Begin").click()
    page.get_by_text("1 of 5").wait_for()
    page.keyboard.press("ArrowLeft")
    page.get_by_text("2 of 5").wait_for()
    page.keyboard.press("Backspace")
    page.get_by_text("1 of 5").wait_for()


def test_a_shipped_trial_from_the_form(page: Page, opened: Any) -> None:
    asked: list[Any] = []
    page.route("**/api/compare/shipped", lambda route: (asked.append(route.request.post_data_json), route.abort())[1])
    page.goto("/compare")
    page.get_by_role("button", name="New trial").first.click()
    page.click("#shipped")
    page.get_by_text("10 arms, 80 prompts, on pocket").wait_for()
    page.locator("#world").select_option("sdxl")
    page.get_by_text("on stabilityai/stable-diffusion-xl-base-1.0").wait_for()
    page.fill("#place-word", "ugly")
    page.get_by_role("button", name="Only plan").click()
    page.locator("#maker [role=alert]").wait_for()
    fill = {"negative": "", "placebo": "", "inversion": "", "word": "ugly", "inversion_word": "wrong"}
    assert asked[0]["plan"] is True and (asked[0]["trial"], asked[0]["world"]) == ("negative-lora", "sdxl") and fill.items() <= asked[0]["fill"].items()
