"""The pocket world: which nouns, styles, backgrounds and spoilings there are, and how a picture and its caption are made of them.

Every picture is a pure function of (seed, index): `render(sprites, seed, index)` can be called again years later.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

SIDE = 64
STYLES = {"flat": "twitter", "cartoon": "google", "3d": "fluent"}  # word in the caption -> where its pictures come from
COLOURS = {
    "red": (214, 40, 40), "orange": (247, 136, 28), "yellow": (250, 221, 65), "green": (52, 160, 74),
    "teal": (38, 190, 190), "blue": (45, 90, 214), "purple": (124, 58, 176), "pink": (250, 160, 200),
    "brown": (120, 76, 44), "gray": (140, 140, 144), "black": (22, 22, 26), "white": (246, 246, 246),
}  # fmt: skip
SPOILS = ("blurry", "noisy", "jpeg artifacts", "cropped", "low contrast", "washed out")
PLACES = {"": (0.5, 0.5), "on the left": (0.26, 0.5), "on the right": (0.74, 0.5), "at the top": (0.5, 0.27), "at the bottom": (0.5, 0.73)}
SIZES = {"large": 0.94, "": 0.72, "small": 0.46}
CAT_MOODS = ("1f63a", "1f638", "1f639", "1f63b", "1f63c", "1f63d", "1f640", "1f63f", "1f63e")
HELD_OUT_STYLE = "3d"  # the nine cat faces of this style are never trained on: they are the demo's subject

# emojibase label, or "label=noun" where the everyday word is another
NOUNS = """
monkey face=monkey|dog face=dog|wolf|fox|cat face=cat|lion|tiger face=tiger|horse|unicorn|zebra|cow face=cow|pig face=pig|camel|llama|
giraffe|elephant|mouse face=mouse|rabbit face=rabbit|bat|bear|koala|panda|chicken|rooster|bird|penguin|duck|owl|flamingo|parrot|frog|
turtle|snake|dragon|spouting whale=whale|dolphin|fish|blowfish|shark|octopus|crab|snail|butterfly|honeybee=bee|lady beetle=ladybug|
spider|rose|sunflower|deciduous tree=tree|palm tree|cactus|maple leaf|mushroom|grapes|watermelon|lemon|banana|pineapple|red apple|
green apple|pear|cherries|strawberry|tomato|avocado|eggplant|carrot|ear of corn=corn|broccoli|onion|bread|croissant|pretzel|bagel|
waffle|cheese wedge=cheese|hamburger|french fries|pizza|hot dog|sandwich|egg|popcorn|sushi|soft ice cream=ice cream|doughnut|cookie|
birthday cake|cupcake|lollipop|teapot|wine glass|spoon|volcano|house|castle|tent|bus|fire engine|police car|taxi|automobile=car|
tractor|bicycle|traffic light|sailboat|ship|airplane|helicopter|rocket|alarm clock|crescent moon=moon|sun|star|cloud|rainbow|umbrella|
snowflake|snowman|fire|droplet|jack-o-lantern|Christmas tree|balloon|wrapped gift=gift|trophy|soccer ball|baseball|basketball|tennis|
kite|pool 8 ball|game die=die|puzzle piece|teddy bear|glasses|sunglasses|necktie|t-shirt|jeans|scarf|socks|dress|handbag|backpack|
running shoe|crown|top hat|ring|gem stone=diamond|bell|microphone|headphone=headphones|trumpet|guitar|violin|drum|telephone|laptop|
television|camera|candle|light bulb|closed book=book|package|pencil|scissors|locked=padlock|key|hammer|bomb|shield|gear|magnet|door|
chair|bucket|toothbrush|coin|robot|ghost|alien|skull|clown face=clown|pile of poo=poo|red heart|broken heart|crying face|thinking face
"""


@dataclass(frozen=True)
class Subject:
    code: str
    noun: str


@dataclass(frozen=True)
class Scene:
    """What a picture shows: all that its caption may say."""

    subject: int
    style: str
    colour: str
    size: str
    place: str
    spoil: str  # "" for a clean one
    gradient: bool
    original: int  # side in pixels of the file it pretends to come from: SDXL's micro-conditioning
    crop: tuple[int, int]  # (top, left) of the crop that was applied


def subjects(emojibase: list[dict]) -> list[Subject]:
    """The nouns in a fixed order, then the nine cat moods (which exist in two styles only)."""
    by_label = {row["label"]: row["hexcode"].lower().replace("-fe0f", "") for row in emojibase}
    by_label["traffic light"] = by_label["vertical traffic light"]
    chosen = []
    for entry in NOUNS.replace("\n", "").split("|"):
        label, _, noun = entry.partition("=")
        chosen.append(Subject(by_label[label], (noun or label).lower()))
    by_code = {code: label for label, code in by_label.items()}
    return chosen + [Subject(code, by_code[code]) for code in CAT_MOODS]


def sprite_file(packages: Path, style: str, code: str) -> Path | None:
    folder, ending = {
        "flat": (packages / "emoji-datasource-twitter/img/twitter/64", ".png"),
        "cartoon": (packages / "emoji-datasource-google/img/google/64", ".png"),
        "3d": (packages / "@lobehub/fluent-emoji-3d/assets", ".webp"),
    }[style]
    for name in (code, code + "-fe0f"):
        if (folder / (name + ending)).exists():
            return folder / (name + ending)
    return None


def load_sprites(packages: Path, chosen: list[Subject], held_out: bool = False) -> dict[tuple[int, str], Image.Image]:
    """RGBA sprites of 64 px a side by (subject, style); the held-out cats only where asked for, and then alone."""
    sprites = {}
    for index, subject in enumerate(chosen):
        for style in STYLES:
            if (subject.code in CAT_MOODS and style == HELD_OUT_STYLE) != held_out:
                continue
            path = sprite_file(packages, style, subject.code)
            if path is None:
                raise FileNotFoundError(f"{subject.noun} ({subject.code}) has no {style} picture")
            sprites[index, style] = Image.open(path).convert("RGBA").resize((96, 96), Image.Resampling.LANCZOS)
    return sprites


def draw_scene(keys: list[tuple[int, str]], rng: np.random.Generator) -> Scene:
    subject, style = keys[rng.integers(len(keys))]
    colour = list(COLOURS)[rng.integers(len(COLOURS))]
    roll = rng.random()
    size = "large" if roll < 0.6 else "" if roll < 0.85 else "small"
    place = "" if size == "large" or rng.random() < 0.4 else list(PLACES)[1 + rng.integers(4)]
    spoil = SPOILS[rng.integers(len(SPOILS))] if rng.random() < 1 / 7 else ""
    original = int(rng.integers(20, 44)) if not spoil and rng.random() < 0.04 else SIDE
    return Scene(subject, style, colour, size, place, spoil, bool(rng.random() < 0.15), original, (0, 0))


def paint(sprite: Image.Image, scene: Scene, rng: np.random.Generator) -> tuple[Image.Image, Scene]:
    """Compose, then spoil. The scene comes back with the crop that was applied."""
    base = np.array(COLOURS[scene.colour], np.float32) + rng.normal(0, 6, 3)
    ground = np.broadcast_to(base, (SIDE, SIDE, 3))
    if scene.gradient:
        ramp = np.linspace(-28, 28, SIDE, dtype=np.float32)[:, None, None] * (1 if rng.random() < 0.5 else -1)
        ground = ground + ramp
    side = SIZES[scene.size] * SIDE * rng.uniform(0.94, 1.06)
    x, y = (np.array(PLACES[scene.place]) + rng.normal(0, 0.012, 2)) * SIDE
    if scene.spoil == "cropped":
        grown = side * rng.uniform(1.35, 1.7)
        top, left = rng.uniform(0.1, 0.3, 2) * grown * rng.choice([-1, 1], 2)
        x, y, side = x + left, y + top, grown
        scene = replace(scene, crop=(int(abs(top)), int(abs(left))))
    side = max(8, round(side))
    placed = sprite.resize((side, side), Image.Resampling.LANCZOS)
    canvas = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    canvas.paste(placed, (round(x - side / 2), round(y - side / 2)), placed)
    if scene.original < SIDE:
        canvas = canvas.resize((scene.original,) * 2, Image.Resampling.BOX).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return spoil(canvas, scene.spoil, rng), scene


def spoil(picture: Image.Image, how: str, rng: np.random.Generator) -> Image.Image:
    match how:
        case "blurry":
            return picture.filter(ImageFilter.GaussianBlur(rng.uniform(1.6, 3.0)))
        case "noisy":
            noisy = np.asarray(picture, np.float32) + rng.normal(0, rng.uniform(28, 55), (SIDE, SIDE, 3))
            return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        case "jpeg artifacts":
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=int(rng.integers(2, 10)))
            return Image.open(buffer).convert("RGB")
        case "low contrast":
            pixels = np.asarray(picture, np.float32)
            mean = pixels.mean((0, 1))
            return Image.fromarray((mean + (pixels - mean) * rng.uniform(0.2, 0.4)).astype(np.uint8))
        case "washed out":
            pixels = np.asarray(picture, np.float32)
            return Image.fromarray((255 - (255 - pixels) * rng.uniform(0.25, 0.45)).astype(np.uint8))
        case _:
            return picture


def caption(scene: Scene, chosen: list[Subject], rng: np.random.Generator) -> str:
    """One of many wordings; now and then something is left unsaid, so that prompts may be short too."""
    noun = chosen[scene.subject].noun
    style = scene.style if rng.random() < 0.85 else ""
    size = scene.size if rng.random() < (0.5 if scene.size == "large" else 0.9) else ""
    ground = f"{scene.colour} background" if rng.random() < 0.94 else ""
    place = scene.place
    thing = " ".join(word for word in (size, style, noun) if word)
    article = "an" if thing[0] in "aeiou" else "a"
    match int(rng.integers(6)):
        case 0 | 1 | 2:
            text = f"{article} {thing}" + (f" on a {ground}" if ground else "") + (f", {place}" if place else "")
        case 3:
            text = ", ".join(part for part in (f"{size} {noun}".strip(), f"{style} style" if style else "", place, ground) if part)
        case 4:
            text = f"a picture of {article} {thing}" + (f" {place}" if place else "") + (f", {ground}" if ground else "")
        case _:
            text = ", ".join(part for part in (ground, thing, place) if part)
    if scene.spoil:
        return f"{scene.spoil}, {text}" if rng.random() < 0.5 else f"{text}, {scene.spoil}"
    if scene.original == SIDE and rng.random() < 0.2:
        return f"{text}, high quality"
    return text


def render(sprites: dict[tuple[int, str], Image.Image], seed: int, index: int) -> tuple[Image.Image, Scene]:
    rng = np.random.default_rng([seed, index, 1])
    scene = draw_scene(sorted(sprites), rng)
    return paint(sprites[scene.subject, scene.style], scene, rng)
