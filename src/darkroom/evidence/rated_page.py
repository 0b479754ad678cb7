"""The ratings' part of a trial's report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from darkroom.errors import DarkroomError
from darkroom.evidence.figures import number, p_value, percent
from darkroom.evidence.rated import rated

View = dict[str, Any]
FEW = 10  # repeats below which kappa is noise


def rated_section(result: Mapping[str, Any], folder: Path, symbols: Mapping[str, str]) -> Markup:
    """The section as HTML; empty where nobody has rated. Ratings that cannot be read are said in its place: they must not cost the report."""
    if not (folder / "ratings").is_dir():
        return Markup("")
    try:
        facts = rated(folder, result)
    except DarkroomError as error:
        facts = {"faults": [str(error)], "comparisons": [], "strengths": [], "agreement_sentence": "", "raters": [], "notes": []}
    if facts is None:
        return Markup("")
    env = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    template = env.from_string(Path(__file__).with_name("rated.html.j2").read_text("utf-8"))
    return Markup(template.render(
        facts=facts,
        cards=[_card(one) for one in facts["comparisons"]],
        raters=[_rater(one) for one in facts["raters"]],
        strengths=[_strength(one) for one in facts["strengths"]] if len(facts["strengths"]) > 2 else [],
        symbols=symbols,
    ))  # fmt: skip


def _card(one: Mapping[str, Any]) -> View:
    shown = {name: percent(one[name]) for name in ("probability", "low", "high")}
    p = {name: p_value(one[name]) for name in ("p", "p_corrected")}
    return {
        **one,
        **shown,
        **p,
        "confidence": f"{100 * one['confidence']:.4g}\u00a0%",
        "at": [round(100 * one[name], 2) for name in ("low", "probability", "high")],
    }


def _strength(one: Mapping[str, Any]) -> View:
    sizes = [number(one[name], 2, signed=True) for name in ("log_strength", "low", "high")]
    return {"arm": one["arm"], "cells": [sizes[0], f"{sizes[1]} to {sizes[2]}", percent(one["chance"])]}


def _rater(one: Mapping[str, Any]) -> View:
    again, side = one["repeats"], one["side"]
    alike = f"{again['same']} of {again['count']}" if again else "-"
    kappa = "-" if not again or again["kappa"] is None or again["count"] < FEW else number(again["kappa"], 2)
    left = f"{percent(side['probability'])} ({percent(side['low'])} to {percent(side['high'])})" if side else "-"
    return {"rater": one["rater"], "cells": [str(one["answers"]), str(one["ties"]), alike, kappa, left]}
