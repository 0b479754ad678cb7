"""Draw in a browser, with real drawings of the pocket model: drawn, drawn again exactly, a painted mask, the request back in the form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image

from darkroom.sampling.request import Request, read_request

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_from_a_prompt_to_a_painted_mask_and_back_to_the_form(page: Page, opened: Any) -> None:
    page.goto("/draw")
    page.fill("#prompt", "a (red:1.3) cat <lora:thor:0.8>")
    page.get_by_text("thor 0.8: no such file in adapters/").wait_for()
    page.fill("#prompt", "a 3d cat on a red background")
    page.fill("#steps", "4")
    page.keyboard.press("Control+Enter")
    page.locator("#history .tile").wait_for()
    first = opened.workspace / "pictures" / "0000-seed0.png"
    assert read_request(first).steps == 4

    page.locator("#history .tile img").first.click()
    page.click("#again")
    page.get_by_text("Drawn again: the same bytes.").first.wait_for()
    page.get_by_role("button", name="As start picture").click()
    page.click("#paint")
    page.locator("canvas[data-ready]").wait_for()
    box = page.locator("canvas").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.5, steps=6)
    page.mouse.up()
    page.click("#mask-done")
    page.get_by_alt_text("Mask: white is drawn anew").wait_for()
    page.fill("#prompt", "a green hat")
    page.click("#draw")
    page.get_by_text("pictures/0001-seed0.png").wait_for()
    request = read_request(opened.workspace / "pictures" / "0001-seed0.png")
    mask = Image.open(opened.workspace / request.mask).convert("L")
    white = sum(mask.histogram()[1:])
    assert mask.size == Image.open(first).size and 0 < white < mask.width * mask.height and white == mask.histogram()[255]

    page.fill("#prompt", "something else")
    page.locator("#form").evaluate(
        """async (form) => {
            const blob = await (await fetch("/file?name=pictures/0001-seed0.png")).blob(), transfer = new DataTransfer();
            transfer.items.add(new File([blob], "it.png", { type: "image/png" }));
            form.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }"""
    )
    page.get_by_text("The picture's request is in the form.").wait_for()
    assert page.input_value("#prompt") == "a green hat" and page.input_value("#steps") == "4"


def test_a_mistake_is_said_and_the_form_keeps_what_was_written(page: Page) -> None:
    page.goto("/draw")
    page.fill("#prompt", "(a)++ (b:1.2)")
    page.get_by_text("marks of two languages").first.wait_for()
    page.fill("#steps", "0")
    page.click("#draw")
    page.locator(".toast.bad, :invalid").first.wait_for()
    assert page.input_value("#prompt") == "(a)++ (b:1.2)"


def test_every_field_of_the_form_reaches_the_request(page: Page, opened: Any) -> None:
    (opened.workspace / "pictures").mkdir()
    Image.new("RGB", (64, 64), (200, 90, 30)).save(opened.workspace / "pictures" / "start.png")
    asked: list[Any] = []
    page.route(
        "**/api/draw", lambda route: (asked.append(route.request.post_data_json), route.abort())[1] if route.request.method == "POST" else route.continue_()
    )
    page.goto("/draw")
    page.locator("#history .tile img").click()
    page.get_by_role("button", name="As start picture").click()
    page.fill("#prompt", "a cat")
    page.locator("#how").select_option("@basic")
    for words in ("ControlNet", "Refiner", "More"):
        page.locator("summary", has_text=words).click()
    fields = {
        "out-left": "16",
        "out-bottom": "8",
        "feather": "3",
        "refiner": "pocket-refiner",
        "fraction": "0.7",
        "clip_skip": "1",
        "guidance_rescale": "0.5",
        "upscale": "2",
        "width": "64",
        "seed": "7",
        "count": "3",
    }
    for name, value in fields.items():
        page.fill(f"#{name}", value)
    page.locator("#sampler").select_option("dpmpp_2m_karras")
    page.locator("#keep").select_option("face")
    page.locator("#strength").fill("0.6")
    page.get_by_role("button", name="Add a ControlNet").click()
    page.get_by_label("Model", exact=True).first.fill("owner/edges")
    page.get_by_label("Picture it follows").fill("pictures/start.png")
    page.get_by_label("Prepared").select_option("edge")
    page.click("#draw")
    page.locator(".toast.bad").wait_for()
    (sent,) = asked
    request = sent["request"]
    assert sent["count"] == 3 and request["seed"] == "7" and request["negative"] == "@basic" and request["sampler"] == "dpmpp_2m_karras"
    assert (request["image"], request["strength"], request["outpaint"], request["keep"], request["feather"]) == (
        "pictures/start.png",
        0.6,
        [16, 0, 0, 8],
        "face",
        3,
    )
    assert request["refiner"] == {"model": "pocket-refiner", "fraction": 0.7} and (request["clip_skip"], request["guidance_rescale"], request["upscale"]) == (
        1,
        0.5,
        2,
    )
    assert request["controls"] == [{"model": "owner/edges", "image": "pictures/start.png", "prepare": "edge", "weight": 1, "start": 0, "end": 1}]
    Request.from_tree(request, "the page")


def test_outpainting_by_its_handles(page: Page, opened: Any) -> None:
    (opened.workspace / "pictures").mkdir()
    Image.radial_gradient("L").resize((512, 384)).save(opened.workspace / "pictures" / "start.png")
    page.goto("/draw")
    page.locator("#history .tile img").click()
    page.get_by_role("button", name="As start picture").click()
    right, top = page.get_by_role("slider", name="Pixels added on the right"), page.get_by_role("slider", name="Pixels added at the top")
    right.scroll_into_view_if_needed()
    box = right.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 25, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    added = int(page.input_value("#out-right"))
    assert added > 0 and added % 8 == 0 and right.get_attribute("aria-valuenow") == str(added)
    top.focus()
    for key in ("Shift+ArrowUp", "ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
    page.fill("#out-left", "128")
    page.get_by_text(f"512 x 384 becomes {512 + 128 + added} x {384 + 64}.").wait_for()
    assert page.get_by_role("slider", name="Pixels added on the left").get_attribute("aria-valuenow") == "128"
    top.press("Home")
    assert page.input_value("#out-top") == "0"
