"""A small finished trial with pictures that differ, and a rater who answers by a rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from darkroom.evidence.rating import Pair, Session, answer, next_pair

PROMPTS = ["a cat", "a dog in <b>snow</b>", "a tree", "a house", "a road", "a lake"]


def finished(
    folder: Path, arms: tuple[str, ...] = ("plain base", "adapter-9"), prompts: list[str] | None = None, seeds: tuple[int, ...] = (1, 2, 3)
) -> dict[str, Any]:
    """Write trial.json and pictures that carry their arm's name in their metadata, as Darkroom's own do; returns what trial.json holds."""
    pictures: list[dict[str, Any]] = []
    prompts = prompts or PROMPTS
    for a, arm in enumerate(arms):
        for p, prompt in enumerate(prompts):
            for seed in seeds:
                file = f"pictures/{arm.replace(' ', '-')}/{p:03d}-seed{seed}.png"
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                metadata = PngInfo()
                metadata.add_text("darkroom", arm)
                Image.new("RGB", (8, 8), (40 * a, 20 * p, 30 * seed)).save(folder / file, pnginfo=metadata, icc_profile=arm.encode() * 9)
                pictures.append({"arm": arm, "prompt": prompt, "seed": seed, "file": file, "scores": {"likeness": 50.0 + a}, "pixels": f"{a}-{p}-{seed}"})
    contrasts = [{"arm": arm, "against": arms[0], "differs": ["adapters"], "difference": f"{arm} wears one"} for arm in arms[1:]]
    result = {
        "title": f"Is {arms[1]} better?", "about": "", "baseline": arms[0],
        "arms": [{"name": arm, "what": arm, "differs": [], "difference": ""} for arm in arms],
        "contrasts": contrasts, "prompts": prompts, "seeds": list(seeds), "pictures": pictures, "references": [], "training": [], "faults": [], "receipt": {},
        "metrics": [{"name": "likeness", "question": "Is it alike?", "unit": "points", "higher_is_better": True}],
        "comparisons": [_compared(one["arm"], arms[0]) for one in contrasts],
    }  # fmt: skip
    (folder / "trial.json").write_text(json.dumps(result), encoding="utf-8")
    return result


def _compared(arm: str, against: str) -> dict[str, Any]:
    numbers = {"baseline_mean": 50.0, "arm_mean": 51.0, "mean": 1.0, "low": 0.5, "high": 1.5, "confidence": 0.95, "pairs": 18, "clusters": 6, "p": 0.01}
    return {"arm": arm, "against": against, "metric": "likeness", **numbers, "effect": 1.0, "verdict": "better", "sentence": "likeness: better.", "notes": []}


def rate_all(session: Session, rule: Callable[[Pair], Any], most: int | None = None) -> int:
    """Answer every open pair by a rule; returns how many."""
    count = 0
    while (most is None or count < most) and (shown := next_pair(session)):
        answer(session, shown.id, rule(session.pair(shown.id)), 1.5)
        count += 1
    return count


def prefers(arm: str) -> Callable[[Pair], str]:
    """Always that arm."""
    return lambda pair: "left" if pair.left == arm else "right"
