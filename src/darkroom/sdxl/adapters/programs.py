"""Which program loads what, and why not. Stated from public code: diffusers 0.42 (loaders/), A1111 (extensions-builtin/Lora), ComfyUI (comfy/lora.py,
comfy/weight_adapter), sd-scripts (networks/lora.py). Where a program loads a part and only logs the rest, it is said to load it "partly".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

PROGRAMS = ("diffusers", "A1111", "ComfyUI", "sd-scripts")
PLAIN = {"LoRA", "LoCon"}
SHORT_TEXT = ("partly", "the text encoders' names lack text_model, and it does not find them")


@dataclass(frozen=True)
class Facts:
    """What decides: the layout, the methods, and what makes a file special."""

    layout: str
    methods: frozenset[str]
    tucker: bool = False
    bundled: bool = False
    short_text: bool = False
    scaled_in_json: bool = False
    uneven: bool = False


@dataclass(frozen=True)
class Verdict:
    """Whether a program loads the file: "yes", "partly" or "no", and the reasons."""

    loads: str
    why: str


def verdicts(facts: Facts) -> dict[str, Verdict]:
    """One verdict for each program."""
    judges = {"diffusers": _diffusers, "A1111": _a1111, "ComfyUI": _comfyui, "sd-scripts": _sd_scripts}
    return {program: _worst(judges[program](facts)) for program in PROGRAMS}


def _worst(reasons: Iterable[tuple[str, str]]) -> Verdict:
    found = list(reasons)
    order = ("no", "partly", "yes")
    loads = min((kind for kind, _ in found), key=order.index, default="yes")
    return Verdict(loads, "; ".join(why for kind, why in found if kind == loads or kind == "partly"))


def _kohya(facts: Facts) -> bool:
    return facts.layout in ("kohya", "kohya-diffusers")


def _odd(methods: Iterable[str]) -> str:
    return ", ".join(sorted(methods))


def _diffusers(facts: Facts) -> Iterable[tuple[str, str]]:
    if facts.layout.startswith("mixed"):
        yield "partly", "where both spellings of the U-Net occur it drops those of sgm, silently"
    elif facts.layout in ("lycoris", "comfy", "dotted"):
        yield "no", "it finds none of these names and goes on without the adapter"
    if facts.bundled:
        yield "no", "it refuses a file with bundled embeddings"
    if others := facts.methods - PLAIN - {"DoRA"}:
        yield "no", f"it does not read {_odd(others)}"
    if facts.tucker:
        yield "no", "it does not read lora_mid"
    if "DoRA" in facts.methods and _kohya(facts):
        yield "partly", "it drops dora_scale with a warning, and the effect is another one"
    if facts.uneven and _kohya(facts):
        yield "partly", "0.42 gives attention layers the commonest alpha of their part, and these have several: level them"
    if facts.scaled_in_json:
        yield "yes", "versions that do not read lora_adapter_metadata take alpha for the rank"


def _a1111(facts: Facts) -> Iterable[tuple[str, str]]:
    if not _kohya(facts):
        yield "partly" if facts.layout.startswith("mixed") else "no", "it reads kohya's names alone, and prints the others to its console"
    if facts.short_text:
        yield SHORT_TEXT


def _comfyui(facts: Facts) -> Iterable[tuple[str, str]]:
    if facts.layout in ("diffusers", "peft", "dotted"):
        yield "partly", "it looks for the U-Net's attention under other names and only logs what it did not find"
    if facts.layout.startswith("mixed"):
        yield "partly", "where a module is there in two spellings the last one wins"
    if facts.scaled_in_json:
        yield "partly", "it does not read alphas from JSON, and the strength is another one"
    if "DoRA" in facts.methods and facts.layout in ("diffusers", "peft"):
        yield "partly", "it does not read lora_magnitude_vector"
    if "(IA)^3" in facts.methods:
        yield "no" if facts.methods == {"(IA)^3"} else "partly", "it does not read (IA)^3"
    if facts.bundled:
        yield "partly", "it leaves the bundled embeddings out"
    if facts.short_text:
        yield SHORT_TEXT


def _sd_scripts(facts: Facts) -> Iterable[tuple[str, str]]:
    if not _kohya(facts):
        yield "partly" if facts.layout.startswith("mixed") else "no", "it reads kohya's names alone"
    if others := facts.methods - PLAIN:
        yield "yes", f"{_odd(others)} with --network_module lycoris.kohya; networks.lora would leave it out"
    elif facts.tucker:
        yield "yes", "lora_mid with --network_module lycoris.kohya; networks.lora would leave it out"
    if facts.bundled:
        yield "partly", "it leaves the bundled embeddings out"
    if facts.short_text:
        yield SHORT_TEXT
