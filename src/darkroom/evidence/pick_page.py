"""What `pick` found, to be looked at: one PNG of curves with a film strip, and one page that needs nothing from outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image, ImageDraw, ImageFont

from darkroom.evidence.album import Album, View
from darkroom.evidence.figures import decimals_of, flat, number
from darkroom.evidence.measuring import EXCESS, LOSS
from darkroom.evidence.plots import INKS, Line, Panel, sheet, svg

TITLES = {LOSS: "Held-out loss", "likeness": "Likeness", "clip": "Prompt fidelity", "drift": "Drift of the class", "diversity": "Diversity",
          "copying": "Copying", EXCESS: "Copying beyond chance"}  # fmt: skip
ASIDE = {LOSS: "red: pictures it learned from", "copying": "red: to held-out pictures", EXCESS: "nearer to those learned from than to those held out"}
TILE = 128  # pixels of a film strip's pictures in the PNG


def page(result: Mapping[str, Any], out: Path) -> str:
    """The whole page; pictures are read from `out`."""
    env = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    template = env.from_string(Path(__file__).with_name("pick.html.j2").read_text("utf-8"))
    strips = list(_strips(result, out))
    return template.render(
        result=result,
        plots=[(panel, svg(panel), _question(result, name)) for name, panel in _panels(result)],
        strips=strips,
        columns=["step", *(TITLES.get(curve["name"], curve["name"]) for curve in result["curves"])],
        table=_table(result),
        receipt=list(flat(result["receipt"])),
    )


def picture(result: Mapping[str, Any], out: Path) -> Image.Image:
    """The curves, and below them the first prompt over the steps: the same seed, the chosen step framed."""
    top = sheet([panel for _, panel in _panels(result)])
    rows = [row for row in result["pictures"] if row["kind"] == "subject" and row["prompt"] == 0]
    rows = [row for row in rows if row["seed"] == rows[0]["seed"]]
    side = min(TILE, (top.width - 32) // len(rows) - 6)
    whole = Image.new("RGB", (top.width, top.height + side + 84), "#ffffff")
    whole.paste(top, (0, 0))
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(22)
    pen.text((24, top.height + 4), f"{rows[0]['text']} (the same seed at every step)", INKS["title"], font)
    for number_, row in enumerate(rows):
        x, y = 24 + number_ * (side + 6), top.height + 40
        with Image.open(out / row["file"]) as opened:
            whole.paste(opened.convert("RGB").resize((side, side), Image.Resampling.LANCZOS), (x, y))
        if row["step"] == result["step"]:
            pen.rectangle((x - 3, y - 3, x + side + 2, y + side + 2), outline=INKS["chosen"], width=3)
        pen.text((x + side / 2, y + side + 4), _step(row["step"]), INKS["text"], ImageFont.load_default(20), "ma")
    return whole


def _panels(result: Mapping[str, Any]) -> Iterator[tuple[str, Panel]]:
    curves = {curve["name"]: curve for curve in result["curves"]}
    gone = min((turn["step"] for turn in result["turns"]), default=None)
    for name, title in TITLES.items():
        if name not in curves:
            continue
        curve = curves[name]
        points = tuple(zip(curve["steps"], curve["means"], strict=True))
        ends = tuple(None if low is None else (low, high) for low, high in zip(curve["low"], curve["high"], strict=True))
        lines = (*_beside(name, result, curves), Line(title, points, ends))
        better = "higher" if curve["higher_is_better"] else "lower"
        remark = f"{curve['unit']}, {better} is better" + (f"; {ASIDE[name]}" if name in ASIDE else "")
        yield name, Panel(title, remark, lines, result["step"], gone)


def _beside(name: str, result: Mapping[str, Any], curves: Mapping[str, Any]) -> Iterator[Line]:
    """Lines that a curve is read against."""
    if name == LOSS:
        measured = tuple((step, loss) for step, loss in result["log"] if step <= result["steps"][-1])
        yield from [Line("while training", measured, role="thin")] if len(measured) > 1 else []
        yield Line("learned from", tuple((step, loss) for step, loss in result["learned_loss"]), role="second")
    if name == "copying" and EXCESS in curves and len(curves[EXCESS]["steps"]) == len(curves[name]["steps"]):
        apart = (own - over for own, over in zip(curves[name]["means"], curves[EXCESS]["means"], strict=True))
        yield Line("held out", tuple(zip(curves[name]["steps"], apart, strict=True)), role="second")


def _question(result: Mapping[str, Any], name: str) -> str:
    curve = next(curve for curve in result["curves"] if curve["name"] == name)
    return f"{curve['question']} Mean over {curve['units']} {curve['over']}."


def _strips(result: Mapping[str, Any], out: Path) -> Iterator[View]:
    """The first prompt with and without the trigger, one picture a step, always with the same seed."""
    album = Album(out, 1)
    for kind, title in (("subject", "With the trigger"), ("class", "Without it: the class")):
        rows = [row for row in result["pictures"] if row["kind"] == kind and row["prompt"] == 0]
        if rows:
            same = [row for row in rows if row["seed"] == rows[0]["seed"]]
            yield {"title": title, "prompt": same[0]["text"], "seed": same[0]["seed"], "frames": [_frame(row, result["step"], album) for row in same]}


def _frame(row: Mapping[str, Any], chosen: int, album: Album) -> View:
    return {"step": _step(row["step"]), "chosen": row["step"] == chosen, **album.picture(row["file"], f"step {row['step']}")}


def _step(step: int) -> str:
    return str(step) if step else "base"


def _table(result: Mapping[str, Any]) -> list[View]:
    """Each step's means."""
    places = {curve["name"]: decimals_of(curve["means"]) for curve in result["curves"]}
    return [
        {"step": _step(step), "chosen": step == result["step"], "out": step not in (0, *result["window"]),
         "cells": [_cell(curve, step, places[curve["name"]]) for curve in result["curves"]]}
        for step in result["steps"]
    ]  # fmt: skip


def _cell(curve: Mapping[str, Any], step: int, places: int) -> str:
    steps: Sequence[int] = curve["steps"]
    return number(curve["means"][steps.index(step)], places) if step in steps else "-"
