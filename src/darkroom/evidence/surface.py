"""The scores that a search saw, over the weights: a line for one, a map for two, a profile along each for more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from darkroom.evidence.plots import INKS, Line, Panel, sheet, ticks
from darkroom.statistics.surface import Box, fit

SIDE, LEFT, TOP, RIGHT, BOTTOM = 640, 120, 126, 190, 90  # pixels of the map and around it
COLD, MIDDLE, WARM = np.array([163, 52, 28]), np.array([250, 249, 246]), np.array([20, 102, 76])
SHADES = 15  # steps of colour: their edges are the contour lines


def picture(result: Mapping[str, Any], box: Box) -> Image.Image:
    """The surface of what tune.json holds."""
    return _map(result, box) if len(result["names"]) == 2 else sheet([_profile(result, box, which) for which in range(len(result["names"]))])


def _profile(result: Mapping[str, Any], box: Box, which: int) -> Panel:
    """Along one weight: what was seen, and the fitted surface with the other weights as found."""
    points, scores, found = np.array(result["points"]), np.array(result["scores"]), np.array(result["found"])
    surface = fit(points, scores, found, 1.2 * box.spacing)
    along = np.linspace(max(box.low, found[which] - box.spacing), min(box.high, found[which] + box.spacing), 41)
    fitted = tuple((float(at), float(surface(np.where(np.arange(box.size) == which, at, found)))) for at in along)
    seen = tuple(sorted(zip(points[:, which].tolist(), scores.tolist(), strict=True)))
    lines = (Line("fitted", fitted, role="thin"), Line("seen", seen, role="line" if box.size == 1 else "points"))
    remark = "gain over the weights as given, in standard deviations; dashed: the weight that was found"
    return Panel(result["names"][which], remark, lines, float(found[which]))


def _map(result: Mapping[str, Any], box: Box) -> Image.Image:
    from scipy.interpolate import RBFInterpolator

    points, scores = np.array(result["points"]), np.array(result["scores"])
    grid = np.linspace(box.low, box.high, SIDE // 2)
    across, up = np.meshgrid(grid, grid[::-1])
    smooth = RBFInterpolator(points, scores, smoothing=1e-6)(np.stack([across.ravel(), up.ravel()], 1)).reshape(across.shape)
    largest = float(np.abs(scores).max()) or 1.0
    page = Image.new("RGB", (LEFT + SIDE + RIGHT, TOP + SIDE + BOTTOM), "#ffffff")
    page.paste(Image.fromarray(_coloured(smooth / largest)).resize((SIDE, SIDE), Image.Resampling.NEAREST), (LEFT, TOP))
    pen, font, small = ImageDraw.Draw(page), ImageFont.load_default(22), ImageFont.load_default(17)
    pen.text((24, 20), "What the weights gain over those given, in standard deviations", INKS["title"], font)
    pen.text((24, 56), "dots: looked at; square: as given; ring: found", INKS["text"], small)
    for at in ticks(box.low, box.high, 6):
        x, y = _place(at, at, box)
        pen.text((x, TOP + SIDE + 8), f"{at:g}", INKS["text"], small, "ma")
        pen.text((LEFT - 10, y), f"{at:g}", INKS["text"], small, "rm")
    pen.text((LEFT + SIDE / 2, TOP + SIDE + 44), result["names"][0], INKS["title"], font, "ma")
    pen.text((24, TOP - 36), result["names"][1], INKS["title"], font)
    for point in result["points"]:
        x, y = _place(point[0], point[1], box)
        pen.ellipse((x - 4, y - 4, x + 4, y + 4), INKS["title"], "#ffffff")
    x, y = _place(result["start"][0], result["start"][1], box)
    pen.rectangle((x - 10, y - 10, x + 10, y + 10), outline=INKS["title"], width=3)
    x, y = _place(result["found"][0], result["found"][1], box)
    pen.ellipse((x - 14, y - 14, x + 14, y + 14), outline=INKS["title"], width=4)
    _legend(pen, largest, small)
    return page


def _place(first: float, second: float, box: Box) -> tuple[float, float]:
    width = box.high - box.low
    return LEFT + SIDE * (first - box.low) / width, TOP + SIDE * (1 - (second - box.low) / width)


def _coloured(share: Any) -> Any:
    """(h, w) of -1 to 1 -> (h, w, 3): red is worse, green is better, in shades."""
    level = np.clip(np.round(share * SHADES / 2) / (SHADES / 2), -1, 1)[..., None]
    end = np.where(level < 0, COLD, WARM)
    return (MIDDLE + (end - MIDDLE) * np.abs(level)).astype(np.uint8)


def _legend(pen: ImageDraw.ImageDraw, largest: float, font: Any) -> None:
    left, height = LEFT + SIDE + 36, 300
    for row in range(height):
        colour = tuple(int(value) for value in _coloured(np.array([[1 - 2 * row / height]]))[0, 0])
        pen.line([(left, TOP + row), (left + 30, TOP + row)], colour)
    for share, down in ((1.0, 0.0), (0.0, height / 2), (-1.0, float(height))):
        pen.text((left + 40, TOP + down), f"{share * largest:+.2f}", INKS["text"], font, "lm")
