"""The pictures of a report: embedded so that one file holds them all, each beside its scores, and the pairs that changed most."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from darkroom.evidence.figures import finite, number
from darkroom.fence import let

SIDES = ((64, 512), (256, 384), (None, 256))
"""So many pictures are shown within so many pixels: 64 of SDXL's in full weigh 130 MB, and 2,000 within 256 pixels 30 MB."""
LOSSLESS = 64  # pictures up to which shrunk ones are PNG; more are WebP
TINY = 128  # pixels: narrower pictures are enlarged with hard pixel edges
EXTREMES = 4  # pairs in "best", and in "worst", over all comparisons; at least one of each comparison

View = dict[str, Any]
Key = tuple[str, str, int]


class Album:
    """Pictures of a folder as the page shows them: the more there are, the smaller."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.side = next(side for most, side in SIDES if most is None or count <= most)
        self.format = "PNG" if count <= LOSSLESS else "WEBP"

    def picture(self, file: str, alt: str) -> View:
        """A picture as a data URI: its own bytes where it is a small PNG, else shrunk and turned upright, without its EXIF data; or why there is none."""
        path = self.folder / file
        try:
            with Image.open(path := let(path)) as image:
                shrunk = max(image.size) > self.side
                own = image.format == "PNG" and not shrunk and "exif" not in image.info
                image.load()
                kind, data, size = ("png", path.read_bytes(), image.size) if own else self._shrunk(image)
        except (OSError, SyntaxError, ValueError) as error:
            return {"missing": f"no picture: {error.strerror if isinstance(error, OSError) and error.strerror else error}", "alt": alt, "shrunk": False}
        uri = f"data:image/{kind};base64," + base64.b64encode(data).decode("ascii")
        return {"missing": "", "uri": uri, "width": size[0], "height": size[1], "alt": alt, "tiny": size[0] < TINY, "shrunk": shrunk}

    def _shrunk(self, image: Image.Image) -> tuple[str, bytes, tuple[int, int]]:
        shown = ImageOps.exif_transpose(image).convert("RGBA" if image.has_transparency_data else "RGB")
        shown.thumbnail((self.side, self.side), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        shown.save(file, self.format, **({"quality": 85} if self.format == "WEBP" else {}))
        return self.format.lower(), file.getvalue(), shown.size


def strips(result: Mapping[str, Any], album: Album) -> list[View]:
    """The pictures of the subject: those it learned from, and those it never saw."""
    named = [(title, result[key]) for key, title in (("training", "Learned from"), ("references", "Held out, never learned from")) if result[key]]
    return [{"title": title, "pictures": [album.picture(file, f"{title}: {Path(file).name}") for file in files]} for title, files in named]


def rows(result: Mapping[str, Any], album: Album, places: Mapping[str, int]) -> list[View]:
    """One row a (prompt, seed); its cells in the order of the arms, None where nothing was to be drawn."""
    cells, found = _cells(result, album), []
    for index, (prompt, seed) in enumerate(itertools.product(result["prompts"], result["seeds"]), 1):
        base = cells.get((result["baseline"], prompt, seed))
        drawn = [_against(cells.get((arm["name"], prompt, seed)), base, places) for arm in result["arms"]]
        found.append({"id": f"pair-{index}", "prompt": prompt, "seed": seed, "cells": drawn})
    return found


def _cells(result: Mapping[str, Any], album: Album) -> dict[Key, View]:
    """Every drawn picture with its scores by (arm, prompt, seed)."""
    arms, cells = {arm["name"] for arm in result["arms"]}, {}
    for drawn in result["pictures"]:
        arm, prompt, seed = key = drawn["arm"], drawn["prompt"], drawn["seed"]
        assert arm in arms and prompt in result["prompts"] and seed in result["seeds"], f"{key} is not in the trial's plan"
        scores = {metric["name"]: finite((drawn.get("scores") or {}).get(metric["name"])) for metric in result["metrics"]}
        picture = album.picture(drawn["file"], f"{arm}: {prompt} (seed {seed})")
        cells[key] = {"arm": arm, "picture": picture, "scores": scores, "fault": drawn.get("fault") or picture["missing"]}
    return cells


def _against(cell: View | None, base: View | None, places: Mapping[str, int]) -> View | None:
    """The cell with its scores as (metric, score, distance from the baseline) texts."""
    if cell is None:
        return None
    base_scores = base["scores"] if base and base is not cell else {}
    gaps = {name: score - base_scores[name] for name, score in cell["scores"].items() if score is not None and base_scores.get(name) is not None}
    shown = [(name, number(score, places[name]), number(gaps[name], places[name], True) if name in gaps else "") for name, score in cell["scores"].items()]
    return {**cell, "shown": shown}


def extremes(result: Mapping[str, Any], found: Sequence[View], compared: Sequence[tuple[str, str]], places: int) -> tuple[list[View], list[View]]:
    """The pairs with the largest gain and with the largest loss in the first metric, the most extreme first; some of each comparison."""
    if not result["metrics"] or not compared:
        return [], []
    sign = 1 if result["metrics"][0]["higher_is_better"] else -1
    best, worst = [], []
    for arm, against in compared:
        ranked = sorted(_pairs(result["metrics"][0]["name"], found, arm, against), key=lambda pair: -sign * pair["gap"])
        most = max(1, EXTREMES // len(compared))
        best += [pair for pair in ranked if sign * pair["gap"] > 0][:most]
        worst += [pair for pair in ranked[::-1] if sign * pair["gap"] < 0][:most]
    best, worst = (sorted(several, key=lambda pair: -abs(pair["gap"])) for several in (best, worst))
    return [_shown(pair, places) for pair in best], [_shown(pair, places) for pair in worst]


def _pairs(metric: str, found: Sequence[View], arm: str, against: str) -> Iterator[View]:
    for row in found:
        cells = {cell["arm"]: cell for cell in row["cells"] if cell and cell["scores"][metric] is not None and not cell["picture"]["missing"]}
        if arm in cells and against in cells:
            pair = [cells[against], cells[arm]]
            yield {"row": row, "pair": pair, "gap": pair[1]["scores"][metric] - pair[0]["scores"][metric], "metric": metric}


def _shown(pair: View, places: int) -> View:
    return {**pair, "shown": number(pair["gap"], places, True), "scores": [number(cell["scores"][pair["metric"]], places) for cell in pair["pair"]]}
