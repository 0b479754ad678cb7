"""The report shows everything, asks nothing from outside, and is not fooled by hostile text or missing numbers."""

from __future__ import annotations

import base64
import io
import math
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from darkroom.evidence.album import EXTREMES, SIDES, Album
from darkroom.evidence.forest import interval_svg
from darkroom.evidence.report import render

HOSTILE = "<script>alert('thor')</script> & \"snow\""
PROMPTS, SEEDS = ["a photo of thor", HOSTILE], [1, 2, 3]
VOID = {"meta", "link", "img", "col", "br", "hr", "input"}


class Page(HTMLParser):
    """The page as (tag, attributes, text inside) triples, read by the standard library's own parser."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node: tuple[str, dict[str, str | None], list[str]] = (tag, dict(attrs), [])
        self.found.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        for node in self.open:
            node[2].append(data)

    def all(self, tag: str, **attributes: str) -> list[tuple[dict[str, str | None], str]]:
        """Every element of that tag whose attributes (class_ for class) hold these words: (attributes, text)."""
        wanted = {name.rstrip("_"): word for name, word in attributes.items()}
        hits = [node for node in self.found if node[0] == tag and all(word in (node[1].get(name) or "").split() for name, word in wanted.items())]
        return [(attrs, " ".join("".join(text).split())) for _, attrs, text in hits]


def draw(path: Path, colour: int, size: tuple[int, int] = (8, 8)) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour % 256, colour * 7 % 256, 90)).save(path)
    return path.read_bytes()


def comparison(**changes: Any) -> dict[str, Any]:
    first = {"arm": "adapter", "metric": "likeness", "baseline_mean": 60.0, "arm_mean": 66.0, "mean": 6.0, "low": 3.0, "high": 9.0, "confidence": 0.95}
    return {**first, "pairs": 6, "clusters": 2, "p": 0.0004, "effect": 1.2, "verdict": "better", "sentence": "It looks more like the subject.", **changes}


@pytest.fixture
def trial(tmp_path: Path) -> dict[str, Any]:
    """Two arms, two prompts, three seeds; the adapter gains 1, 2, 3 with the first prompt and loses 4, 5, 6 with the second."""
    gains = {(prompt, seed): seed if prompt == PROMPTS[0] else -3 - seed for prompt in PROMPTS for seed in SEEDS}
    pictures = []
    for index, (arm, prompt, seed) in enumerate((arm, prompt, seed) for arm in ("base", "adapter") for prompt in PROMPTS for seed in SEEDS):
        file = f"pictures/{index}.png"
        draw(tmp_path / file, index)
        scores = {"likeness": 60.0 + (gains[prompt, seed] if arm == "adapter" else 0), "faults": 2.0 + index / 10}
        pictures.append({"arm": arm, "prompt": prompt, "seed": seed, "file": file, "scores": scores})
    draw(tmp_path / "learned.png", 200)
    draw(tmp_path / "held.png", 220)
    return {
        "title": "Does thor look like thor?",
        "about": "A LoRA of rank 8.",
        "baseline": "base",
        "arms": [{"name": "base", "what": "pocket as it is"}, {"name": "adapter", "what": "pocket wearing it"}],
        "prompts": PROMPTS,
        "seeds": SEEDS,
        "metrics": [
            {"name": "likeness", "question": "Does it look like thor?", "unit": "points of 100", "higher_is_better": True},
            {"name": "faults", "question": "Is it clean?", "unit": "faults", "higher_is_better": False},
        ],
        "references": ["held.png"],
        "training": ["learned.png"],
        "pictures": pictures,
        "comparisons": [comparison(), comparison(metric="faults", mean=0.6, low=-0.2, high=1.4, verdict="unclear", sentence="Not shown.")],
        "receipt": {"darkroom": "0.1.0", "sampling": {"steps": 20, "guide": {"scale": 5.5}}, "loss": math.nan},
    }


@pytest.fixture
def page(trial: dict[str, Any], tmp_path: Path) -> Callable[..., Page]:
    return lambda **changes: Page(render({**trial, **changes}, tmp_path))


def test_nothing_comes_from_outside(trial: dict[str, Any], tmp_path: Path) -> None:
    html = render(trial, tmp_path)
    found = Page(html).found
    assert not [tag for tag, _, _ in found if tag in ("script", "iframe", "object", "embed", "base")]
    links = [attrs[name] or "" for _, attrs, _ in found for name in ("src", "href", "srcset", "xlink:href", "action") if name in attrs]
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert "url(" not in html and "@import" not in html and "http:" not in html and "https:" not in html
    policy = next(attrs["content"] for tag, attrs, _ in found if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'")


def test_every_picture_is_embedded_byte_for_byte(trial: dict[str, Any], tmp_path: Path, page: Callable[..., Page]) -> None:
    embedded = {base64.b64decode((attrs["src"] or "").removeprefix("data:image/png;base64,")) for attrs, _ in page().all("img")}
    files = [drawn["file"] for drawn in trial["pictures"]] + trial["training"] + trial["references"]
    assert embedded == {(tmp_path / file).read_bytes() for file in files}


def test_every_picture_has_words_and_small_ones_hard_pixels(trial: dict[str, Any], tmp_path: Path, page: Callable[..., Page]) -> None:
    draw(tmp_path / trial["pictures"][0]["file"], 1, (128, 128))
    images = page().all("img")
    assert all(attrs["alt"] for attrs, _ in images)
    assert {attrs["width"] for attrs, _ in images if attrs.get("class") == "tiny"} == {"8"}
    assert {attrs["width"] for attrs, _ in images if attrs.get("class") is None} == {"128"}


def test_a_large_photo_is_shrunk_upright_and_loses_its_exif(tmp_path: Path, page: Callable[..., Page]) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "SecretCamera"  # orientation: a quarter turn; maker
    Image.new("RGB", (1200, 600)).save(tmp_path / "photo.jpg", exif=exif)
    (attrs,) = (attrs for attrs, _ in page(training=["photo.jpg"]).all("img") if "photo.jpg" in (attrs["alt"] or ""))
    data = base64.b64decode((attrs["src"] or "").removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(data)) as shown:
        assert (shown.format, shown.size, dict(shown.getexif())) == ("PNG", (SIDES[0][1] // 2, SIDES[0][1]), {})
    assert b"SecretCamera" not in data


def test_a_missing_or_broken_picture_is_said_in_its_place(trial: dict[str, Any], tmp_path: Path, page: Callable[..., Page]) -> None:
    (tmp_path / trial["pictures"][3]["file"]).unlink()
    (tmp_path / trial["pictures"][4]["file"]).write_bytes((tmp_path / trial["pictures"][4]["file"]).read_bytes()[:40])
    trial["pictures"][5]["fault"] = "not drawn: the adapter is made for another model."
    found = page()
    told = [text for _, text in found.all("p", class_="none")]
    assert [text[:40] for text in told] == ["no picture: No such file or directory", told[1][:40], "not drawn: the adapter is made for anoth"]
    assert told[1].startswith("no picture: ") and len(found.all("tr", class_="pair")) == 6


def test_hostile_text_is_shown_and_never_run(tmp_path: Path, trial: dict[str, Any]) -> None:
    evil = {"name": HOSTILE, "question": HOSTILE, "unit": HOSTILE, "higher_is_better": True}
    trial["metrics"].append(evil)
    trial["comparisons"].append(comparison(metric=HOSTILE, sentence=HOSTILE))
    changes = {"title": HOSTILE, "about": HOSTILE, "receipt": {HOSTILE: HOSTILE}}
    html = render({**trial, **changes}, tmp_path)
    page = Page(html)
    assert "<script" not in html and not page.all("script")
    assert page.all("h1")[0][1] == page.all("title")[0][1] == HOSTILE
    assert HOSTILE in [text for _, text in page.all("p", class_="sentence")]
    assert any(HOSTILE in (attrs["aria-label"] or "") for attrs, _ in page.all("svg", class_="interval"))
    assert any(HOSTILE in (attrs["alt"] or "") for attrs, _ in page.all("img"))


def test_the_grid_has_a_row_a_pair_and_a_column_an_arm(trial: dict[str, Any], page: Callable[..., Page]) -> None:
    found = page()
    assert len(found.all("tr", class_="pair")) == len(PROMPTS) * len(SEEDS)
    assert len(found.all("div", class_="cell")) == len(trial["pictures"])
    assert [text for _, text in found.all("summary")] == PROMPTS
    assert all(attrs.get("scope") for attrs, _ in found.all("th"))


def test_a_picture_not_drawn_leaves_a_dash(trial: dict[str, Any], page: Callable[..., Page]) -> None:
    found = page(pictures=trial["pictures"][1:])
    assert len(found.all("tr", class_="pair")) == 6
    assert found.all("tr", class_="pair")[0][1].startswith("seed 1 - adapter")


@pytest.mark.parametrize("absent", [math.nan, math.inf, None, "broken", "missing"])
def test_a_score_that_is_no_number_is_a_dash(absent: Any, trial: dict[str, Any], page: Callable[..., Page]) -> None:
    scores = trial["pictures"][0]["scores"]
    scores["likeness"] = absent
    if absent == "missing":
        del scores["likeness"]
    found = page()
    scored = [text for _, text in found.all("dl", class_="scores")]
    assert scored[:2] == ["likeness- faults2.00", "likeness61.0 faults2.60 +0.60"]
    shown = found.all("main")[0][1]
    assert not re.search(r"\b(nan|inf|None|broken)\b", shown)
    assert [text for _, text in found.all("td") if text == "5"] == ["5", "5"]  # one score fewer in both summaries


def test_a_trial_without_any_score_still_renders(trial: dict[str, Any], page: Callable[..., Page]) -> None:
    empty = [{**drawn, "scores": {}} for drawn in trial["pictures"]]
    numbers = dict.fromkeys(("baseline_mean", "arm_mean", "mean", "low", "high", "p", "effect"), math.nan)
    found = page(pictures=empty, comparisons=[comparison(**numbers, verdict="unclear")])
    assert "No pair gained." in found.all("main")[0][1]
    assert not found.all("circle") and len(found.all("svg", class_="interval")) == 1


def test_no_comparison_is_said_in_words(page: Callable[..., Page]) -> None:
    found = page(comparisons=[])
    assert "Nothing was compared" in found.all("section", class_="verdicts")[0][1]
    assert not found.all("article") and not found.all("svg")


def test_a_verdict_is_a_word_and_a_symbol_too(page: Callable[..., Page]) -> None:
    found = page(comparisons=[comparison(verdict=verdict) for verdict in ("better", "worse", "equivalent", "unclear", "splendid")])
    cards = found.all("article")
    assert [attrs["class"] for attrs, _ in cards] == ["card better", "card worse", "card equivalent", "card unclear", "card unclear"]
    assert all(words in text for (_, text), words in zip(cards, ("▲ better", "▼ worse", "≈ equivalent", "○ unclear", "○ unclear"), strict=True))
    assert "2 unclear" in found.all("p", class_="tally")[0][1]


def judged(**changes: Any) -> dict[str, Any]:
    """A comparison as a trial of today writes it."""
    design = {"seeds": 4, "prompts": 1234, "pairs": 4936, "pictures": 9872, "power": 0.8, "safe_prompts": None, "seconds": None}
    more = {"p_corrected": 0.004, "comparisons": 8, "p_permutation": 0.03125, "p_wilcoxon": 0.0625, "bootstrap": [2.5, 9.5], "g": [1.1, 0.4, 1.8]}
    plan = {"difference": 0.5, "visible": 4.25, "power": 0.8, "alternatives": [design]}
    return comparison(**{**more, "wins": [0.75, 0.6, 0.9], "notes": ["1 of 6 pairs is left out."], "plan": plan, **changes})


def test_other_tests_stand_beside_the_verdict(page: Callable[..., Page]) -> None:
    found = page(comparisons=[judged(), judged(metric="faults", bootstrap=None, g=[math.inf, None, None])])
    cells = [text for _, text in found.all("td")]
    first = cells.index("< 0.001")
    assert cells[first : first + 7] == ["< 0.001", "0.004", "0.031", "0.062", "+2.5 to +9.5", "+1.10 (+0.40 to +1.80)", "75 % (60 % to 90 %)"]
    assert cells[first + 11 : first + 14] == ["-", "-", "75 % (60 % to 90 %)"]
    card = found.all("article")[0][1]
    assert "corrected for 8 comparisons 0.004" in card and "better in 75 % (60 % to 90 %) of pairs" in card
    assert [text for _, text in found.all("p", class_="caution")] == ["1 of 6 pairs is left out."] * 2


def test_what_it_would_take_is_shown_where_nothing_can_be_seen(page: Callable[..., Page]) -> None:
    hopeless = {"difference": 1e-6, "visible": 4.25, "power": 0.8, "alternatives": []}
    found = page(
        comparisons=[judged(), judged(metric="faults", verdict="unclear"), judged(verdict="unclear", plan=hopeless), judged(verdict="unclear", plan=None)]
    )
    assert len(found.all("table", class_="plan")) == 1
    cells = [text for _, text in found.all("td")]
    assert cells[cells.index("1,234") - 2 :][:3] == ["0.500", "4.25", "1,234"] and "> 10,000" in cells
    (section,) = (text for attrs, text in found.all("section") if attrs.get("aria-labelledby") == "plans")
    assert "would see one of the size named in 80 % of cases" in section and "4 seeds" in section
    assert "Not even 10,000 prompts would do." in page(comparisons=[judged(verdict="unclear", plan=hopeless)]).all("main")[0][1]


def test_a_trial_of_before_still_renders(page: Callable[..., Page]) -> None:
    found = page()
    assert not found.all("table", class_="opinions") and not found.all("table", class_="plan") and "corrected" not in found.all("article")[0][1]


@pytest.mark.parametrize(("numbers", "expected"), [((3.0, 6.0, 10.0), (62.6, 75.2, 92.0)), ((-10.0, 0.0, 5.0), (8.0, 50.0, 71.0))])
def test_the_forest_plot_is_true_to_scale(numbers: tuple[float, ...], expected: tuple[float, ...]) -> None:
    card = {**comparison(against="base"), "numbers": list(numbers), "mean": "", "low": "", "high": ""}
    svg = Page(str(interval_svg(card, 10.0)))
    bar, dot = svg.all("line", class_="range")[0][0], svg.all("circle")[0][0]
    assert [float((place or "").rstrip("%")) for place in (bar["x1"], dot["cx"], bar["x2"])] == pytest.approx(expected)


def test_best_and_worst_pairs_are_the_extremes(page: Callable[..., Page]) -> None:
    gaps = [text.split()[0] for _, text in page().all("p", class_="pair-head")]
    assert gaps == ["+3.0", "+2.0", "+1.0", "\u22126.0", "\u22125.0", "\u22124.0"]


def test_less_is_a_gain_where_lower_is_better(trial: dict[str, Any], page: Callable[..., Page]) -> None:
    metrics = [{**trial["metrics"][0], "higher_is_better": False}, trial["metrics"][1]]
    found = page(metrics=metrics)
    assert [text.split()[0] for _, text in found.all("p", class_="pair-head")][:1] == ["\u22126.0"]
    assert found.all("p", class_="sides")[0][1].startswith("← better than base")


def test_at_most_four_pairs_each(trial: dict[str, Any], tmp_path: Path) -> None:
    seeds = list(range(1, 8))
    pictures = [
        {"arm": arm, "prompt": PROMPTS[0], "seed": seed, "file": "held.png", "scores": {"likeness": seed if arm == "adapter" else 0}}
        for arm in ("base", "adapter")
        for seed in seeds
    ]
    found = Page(render({**trial, "prompts": PROMPTS[:1], "seeds": seeds, "pictures": pictures}, tmp_path))
    assert len(found.all("p", class_="pair-head")) == EXTREMES == 4
    assert "No pair lost." in found.all("main")[0][1]


def test_the_summary_is_the_statistics_own_under_both_aggregations(trial: dict[str, Any], page: Callable[..., Page]) -> None:
    cells = [text for _, text in page().all("td")][-4 * 2 * 13 :]  # arms x metrics of both tables
    assert cells[13:26] == [
        "6",
        "2",
        "58.5",
        "3.9",
        "54.0",
        "55.2",
        "58.5",
        "61.8",
        "63.0",
        "0.00",
        "\u22121.80",
        "-",
        "-",
    ]  # std of 1 2 3 -4 -5 -6: sqrt(77.5 / 5)
    assert cells[4 * 13 + 13 :][:5] == ["6", "2", "58.5", "1.0", "57.5"]  # of 61 62 63 and 54 55 56


def test_many_comparisons_are_a_table_with_their_sentences(trial: dict[str, Any], page: Callable[..., Page]) -> None:
    """Nine arms: what was decided is said in full, what was not can be opened, and a note that all metrics share is said once."""
    names = ["base", *(f"arm {i}" for i in range(1, 9))]
    arms = [{"name": name, "what": "somehow", "differs": ["adapters", "negative"], "difference": ""} for name in names]
    told = [
        comparison(
            arm=arm, against="base", metric=metric, verdict="better" if arm == "arm 3" else "unclear", sentence=f"{metric} of {arm}.", notes=["Left out."]
        )
        for metric in ("likeness", "faults")
        for arm in names[1:]
    ]
    contrasts = [{"arm": arm, "against": "base", "differs": ["adapters", "negative"], "difference": f"{arm} differs in 2 things."} for arm in names[1:]]
    found = page(arms=arms, comparisons=told, contrasts=contrasts, pictures=[])
    assert len(found.all("table", class_="matrix")) == 1 and not found.all("article", class_="card")
    blocks = [text for _, text in found.all("article")]
    assert len(blocks) == 8 and all(block.count("Left out.") == 1 and "differs in 2 things." in block for block in blocks)
    assert "likeness of arm 3." in blocks[2] and not [text for _, text in found.all("details") if "of arm 3." in text]
    assert [text for _, text in found.all("details") if "likeness of arm 1." in text]
    assert "2 things from base: adapters, negative" in found.all("dl", class_="arms")[0][1]


def test_what_went_wrong_is_said_first(page: Callable[..., Page]) -> None:
    found = page(faults=["clip: could not score any further picture and was given up."])
    assert "given up" in found.all("section", class_="verdicts")[0][1].split("likeness")[0]


@pytest.mark.parametrize("count", [64, 65, 400])
def test_many_large_pictures_are_shrunk_further(count: int, tmp_path: Path) -> None:
    Image.new("RGB", (1024, 512)).save(tmp_path / "large.png")
    shown = Album(tmp_path, count).picture("large.png", "large")
    assert (shown["width"], shown["uri"][:16]) == {64: (512, "data:image/png;b"), 65: (384, "data:image/webp;"), 400: (256, "data:image/webp;")}[count]


def test_the_receipt_is_flat(page: Callable[..., Page]) -> None:
    found = page()
    names = Counter(text for _, text in found.all("dt"))
    assert {"darkroom", "sampling.steps", "sampling.guide.scale", "loss"} <= names.keys()
    assert [text for _, text in found.all("dd")][-4:] == ["0.1.0", "20", "5.5", "-"]


def test_a_picture_outside_the_plan_is_our_mistake(trial: dict[str, Any], tmp_path: Path) -> None:
    trial["pictures"][0]["seed"] = 99
    with pytest.raises(AssertionError, match="99"):
        render(trial, tmp_path)
