"""What the other programs have in common: rate schedules, optimizers, precisions, prompts that name a subject."""

from __future__ import annotations

import re
from typing import Any

from darkroom.errors import RecipeError
from darkroom.jobs.migrate.report import Ledger

PRECISIONS = {"no": "fp32", "fp16": "fp16", "bf16": "bf16", "float": "fp32", "fp32": "fp32"}
SDXL_BASE = "stabilityai/stable-diffusion-xl-base-1.0"
OTHER_FAMILY = re.compile(r"stable-diffusion-(v?1|v?2)|\bsd[-_ ]?(1\.?[45]|2\.?[01])\b|v1-[45]|flux|stable-diffusion-3|stable-cascade", re.IGNORECASE)
RARE = re.compile(r"(?:<[^<>\s]+>)+|\$\{?\w+\}?|[A-Z][A-Z0-9]+|[A-Za-z]\w*\d\w*|sks|ohwx|zwx|olis")  # words that stand for nothing else
SELF_SETTING = ("prodigy", "dadapt", "dadaptation", "schedulefree")  # these optimizers choose their own rate: theirs says nothing to AdamW


def base(ledger: Ledger, key: str = "pretrained_model_name_or_path") -> None:
    """The base model; SDXL 1.0 and a line to do where none is named. Raises RecipeError for another family's."""
    name = ledger[key]
    if name and OTHER_FAMILY.search(str(name)):
        raise RecipeError(f"{ledger.shown(key)} = {name}: is not an SDXL model by its name, and Darkroom trains SDXL alone. Choose an SDXL base there first.")
    if not name:
        ledger.todo.append(f"No base model is named: {SDXL_BASE} was written down. Change `base` if it is another.")
    ledger.map(key, "base", name or SDXL_BASE)


def vae(ledger: Ledger, key: str) -> None:
    """Another autoencoder: fp16-fix exists because SDXL's own overflows in half precision, which cannot happen here."""
    name = str(ledger[key] or "")
    if not name:
        ledger.imply(key, "the base's own autoencoder, as here")
    elif "fp16-fix" in name or "fp16_fix" in name:
        ledger.imply(key, "it exists because SDXL's own overflows in fp16; here that one computes in float32 instead, and its latents are the true ones")
    else:
        ledger.lack(key, "a recipe names no autoencoder of its own: the base's is used")


def precision(ledger: Ledger, key: str, target: str = "train.precision", left_out: str = "") -> None:
    """The number format of the forward pass, or of the file."""
    said = ledger[key]
    name = str(said or left_out or "no")
    if name not in PRECISIONS:
        raise RecipeError(f"{ledger.shown(key)} = {name}: is not one of no, fp16, bf16. Correct it there.")
    ledger.map(
        key,
        target,
        PRECISIONS[name],
        "" if said else "neither program says; accelerate's own default is full precision" if target.endswith("precision") else "",
    )


def schedule(ledger: Ledger, steps: int | None, cycles: str, power: str) -> None:
    """lr_scheduler and lr_warmup_steps. `steps` is the length where it is known, for a warm-up that is a share of it."""
    name = str(ledger["lr_scheduler"] or "constant")
    used = ""
    match name:
        case "constant" | "linear" | "cosine":
            ledger.map("lr_scheduler", "optimizer.schedule", name)
        case "constant_with_warmup":
            ledger.map("lr_scheduler", "optimizer.schedule", "constant", "the warm-up is a key of its own")
        case "cosine_with_restarts":
            ledger.map("lr_scheduler", "optimizer.schedule", name)
            ledger.map(cycles, "optimizer.cycles", max(1, int(ledger[cycles] or 1))) if cycles in ledger.given else None
            used = cycles
        case "polynomial" if (1.0 if ledger[power] is None else float(ledger[power])) > 0:
            ledger.map("lr_scheduler", "optimizer.schedule", name, "ending at 1e-7, as there")
            ledger.put("optimizer.floor", min(0.99, 1e-7 / ledger.recipe["optimizer"]["rate"]))
            ledger.map(power, "optimizer.power", float(ledger[power])) if power in ledger.given else None
            used = power
        case "cosine_with_min_lr":
            ledger.map("lr_scheduler", "optimizer.schedule", "cosine", "its least rate is a key of its own")
            used = "lr_scheduler_min_lr_ratio"
            ledger.map(used, "optimizer.floor", min(0.99, float(ledger[used] or 0.0))) if used in ledger.given else None
        case _:
            nearest = "cosine" if name.startswith("cosine") else "constant"
            ledger.put("optimizer.schedule", nearest)
            ledger.lack(
                "lr_scheduler", f'it is no schedule here (constant, linear, cosine, cosine_with_restarts, polynomial, rex); "{nearest}" is written down'
            )
    for key in (cycles, power, "lr_scheduler_min_lr_ratio"):
        if key and key != used:
            ledger.imply(key, f'a "{name}" schedule does not use it')
    _warmup(ledger, name, steps)


def no_schedule(ledger: Ledger, cycles: str, power: str, why: str) -> None:
    """An optimizer that takes no notice of the schedule."""
    for key in ("lr_scheduler", "lr_warmup_steps", cycles, power, "lr_scheduler_min_lr_ratio"):
        ledger.imply(key, why)


def _warmup(ledger: Ledger, name: str, steps: int | None) -> None:
    said = float(ledger["lr_warmup_steps"] or 0)
    if name == "constant" and said:
        ledger.put("optimizer.warmup", 0)
        ledger.imply("lr_warmup_steps", 'a "constant" schedule ignores it there ("constant_with_warmup" is the one that warms up)')
    elif 0 < said < 1:
        ledger.map("lr_warmup_steps", "optimizer.warmup", int(said * steps) if steps else said, f"{said:.0%} of {steps or 'the'} steps")
    else:
        ledger.map("lr_warmup_steps", "optimizer.warmup", max(0, int(said)))


def split_prompt(prompt: str) -> tuple[str, str]:
    """A DreamBooth prompt as (caption template, subject), trigger word first: "a photo of TOK cat" is ("a photo of {subject}", "TOK cat").

    The trigger is the first word that looks like one (<s1>, TOK, sks, ohwx, p3rs0n, $VARIABLE), else the first word after "of" and an article.
    """
    prompt = " ".join(prompt.split())
    head = prompt.partition(",")[0]  # what follows a comma is style, as in "a photo of a cat, HDR"
    rare = next((word for word in re.finditer(r"\S+", head) if RARE.fullmatch(word[0].strip(".;:!?"))), None)
    if rare is not None:
        start = rare.start()
    else:
        article = r"(?:(?:a|an|the|my)\s+)?(?=\S)"
        before = re.search(rf"\bof\s+{article}", head, re.IGNORECASE) or re.match(article, prompt, re.IGNORECASE)
        start = before.end() if before else 0
    end = prompt.find(",", start)
    subject = prompt[start : end if end >= 0 else None].strip()
    return (f"{prompt[:start]}{{subject}}{prompt[start + len(subject) :]}", subject) if subject else ("{subject}", prompt)


def arguments(parts: list[str] | None) -> dict[str, str]:
    """["weight_decay=0.1", "betas=0.9,0.99"] as a dictionary."""
    pairs = (part.partition("=") for part in parts or [])
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs if key.strip()}


def numbers(text: Any) -> list[float] | None:
    """ "0.9,0.99" or "(0.9, 0.99)" as numbers, None where it is something else."""
    try:
        return [float(part) for part in str(text).strip("()[] ").split(",") if part.strip()]
    except ValueError:
        return None
