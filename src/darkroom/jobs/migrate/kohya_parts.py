"""The method and the previews of sd-scripts' settings."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from darkroom.errors import RecipeError
from darkroom.jobs.migrate import convert
from darkroom.jobs.migrate.report import Ledger

PLAIN = {"networks.lora", "standard", "kohya locon", "lycoris/locon", "locon"}
PRESETS = {"full": (True, True), "attn-mlp": (True, False), "attn-only": (False, False)}
"""Presets of LyCORIS: whether the feed-forward layers and the convolutions are changed too."""
SAMPLE_FLAGS = {"n": "negative", "w": "width", "h": "height", "d": "seed", "l": "scale", "s": "steps", "g": "guidance", "ss": "sampler", "cn": "control",
                "ctr": "cfg_trunc", "rcfg": "renorm_cfg", "fs": "flow_shift"}  # fmt: skip


def method(ledger: Ledger) -> None:
    """network_module, its dimensions and the rates of its two halves."""
    module, algorithm = str(ledger["network_module"]), str(ledger["algo"] or "").lower()
    lycoris = module.lower().startswith("lycoris") or module.lower() == "locon"
    plain = module.lower() in PLAIN or (module.lower() == "lycoris.kohya" and algorithm in ("", "lora", "locon"))
    ledger.put("method.kind", "lora")
    if plain:
        ledger.map("network_module", "method.kind", "lora")
        ledger.imply("algo", "it is a LoRA")
    else:
        said = algorithm or module
        ledger.lack("network_module", f'"{said}" is no method here (yet): a LoRA of the same rank and alpha is trained instead, which is another thing')
        ledger.lack("algo", "see the module")
        ledger.todo.append(f'The method "{said}" was replaced by a LoRA: choose method.rank and optimizer.rate for that.')
    ledger.map("network_dim", "method.rank", ledger["network_dim"] or 4, "" if ledger["network_dim"] else "sd-scripts takes 4")
    ledger.map("network_alpha", "method.alpha", float(ledger["network_alpha"] or ledger["network_dim"] or 4))
    layers, convolution = _parts(ledger, lycoris and "networks" not in module)
    _rates(ledger, layers)
    _convolution(ledger, convolution)


def _parts(ledger: Ledger, lycoris: bool) -> tuple[bool, bool]:
    """Whether the feed-forward layers and the convolutions are changed."""
    if not lycoris:
        ledger.imply("preset", "for LyCORIS alone")
        return True, ledger["conv_dim"] is not None
    preset = str(ledger["preset"] or "full")
    if preset in PRESETS:
        ledger.imply("preset", "it is in method.feed_forward and method.convolution")
        return PRESETS[preset]
    ledger.lack("preset", "attention and feed-forward layers are changed")
    return True, False


def _convolution(ledger: Ledger, convolution: bool) -> None:
    rank, alpha = ledger.recipe["method"]["rank"], ledger.recipe["method"]["alpha"]
    ledger.put("method.convolution", convolution)
    if not convolution or ledger["conv_dim"] is None:
        for key in ("conv_dim", "conv_alpha"):
            ledger.imply(key, "the convolutions are changed with the rank of the rest" if convolution else "the convolutions are left alone")
    elif (ledger["conv_dim"], float(ledger["conv_alpha"] or 1)) == (rank, alpha):
        ledger.map("conv_dim", "method.convolution", True)
        ledger.imply("conv_alpha", "the same as network_alpha, as here")
    else:
        ledger.lack("conv_dim", f"the convolutions are changed with the rank of the rest (yet): {rank}")
        ledger.lack("conv_alpha", f"the convolutions are changed with the alpha of the rest (yet): {alpha:g}", even_left_out=False)


def _rates(ledger: Ledger, layers: bool) -> None:
    """learning_rate, unet_lr and text_encoder_lr as one rate and a ratio; a rate of 0 leaves its part alone."""
    texts = convert.numbers(ledger["text_encoder_lr"]) if ledger["text_encoder_lr"] is not None else None
    if ledger["text_encoder_lr"] is not None and texts is None:
        raise RecipeError(f"{ledger.shown('text_encoder_lr')} = {ledger['text_encoder_lr']!r}: is no number. Correct it there.")
    common = ledger["learning_rate"]
    unet = common if ledger["unet_lr"] is None else ledger["unet_lr"]
    text = texts[0] if texts else common
    unet_only, text_only = bool(ledger["network_train_unet_only"]) or not text, bool(ledger["network_train_text_encoder_only"]) or not unet
    if unet_only and text_only:
        raise RecipeError(f"{ledger.program}: both the U-Net and the text encoders are left untrained. Give one of them a learning rate above 0.")
    for target in ("method.attention", "method.feed_forward"):
        ledger.put(target, not text_only and (layers or target == "method.attention"))
    ledger.put("method.text_encoders", not unet_only)
    rate = text if text_only else unet
    ledger.put("optimizer.rate", rate)
    if not unet_only:
        ledger.put("method.text_rate", 1.0 if text_only else text / rate)
    _rate_rows(ledger, rate, texts, unet_only, text_only)


def _rate_rows(ledger: Ledger, rate: float, texts: list[float] | None, unet_only: bool, text_only: bool) -> None:
    used = (not text_only and ledger["unet_lr"] is None) or (not unet_only and texts is None)
    ledger.tell("learning_rate", f"optimizer.rate = {rate!r}") if used else ledger.imply("learning_rate", "the rates of the two halves count before it")
    if "unet_lr" in ledger.given:
        ledger.imply("unet_lr", "the U-Net is not trained") if text_only else ledger.tell("unet_lr", f"optimizer.rate = {rate!r}")
    if unet_only:
        ledger.tell("text_encoder_lr", "method.text_encoders = false") if texts else None
    elif texts and len(set(texts)) > 1:
        ledger.lack("text_encoder_lr", f"both text encoders learn at one rate (yet): the first, {texts[0]:g}")
    elif texts:
        target = f"optimizer.rate = {rate!r}" if text_only else f"method.text_rate = {ledger.recipe['method']['text_rate']!r}"
        ledger.tell("text_encoder_lr", target, "a multiple of the U-Net's rate" if not text_only else "")
    ledger.tell(
        "network_train_unet_only",
        f"method.text_encoders = {str(not unet_only).lower()}",
        "left out, sd-scripts trains the text encoders too" if not unet_only else "",
    )
    only = bool(ledger["network_train_text_encoder_only"])
    ledger.tell("network_train_text_encoder_only", "method.attention = false") if only else ledger.imply("network_train_text_encoder_only", "off, as here")


def previews(ledger: Ledger, repeats: int) -> None:
    """sample_prompts and how often. sd-scripts draws nothing without an interval; an interval in epochs counts before one in steps."""
    said = ledger["sample_prompts"]
    every = {"sample_every_n_epochs": "epochs", "sample_every_n_steps": "steps"}
    chosen = next((key for key in every if ledger[key]), None)
    if not said or chosen is None:
        for key in ("sample_prompts", *every, "sample_sampler"):
            ledger.imply(key, "nothing is drawn there" if not said else "without an interval nothing is drawn there")
        return
    for key, unit in every.items():
        count = ledger[key]
        if key == chosen:
            ledger.map(key, "preview.every", f"{count * repeats if unit == 'epochs' else count} {unit}")
        else:
            ledger.imply(key, f"{chosen} counts before it" if count else "0: not set")
    if str(ledger["sample_sampler"]) in ("euler", "k_euler"):
        ledger.imply("sample_sampler", "previews are drawn with Euler")
    else:
        ledger.lack("sample_sampler", "previews are drawn with Euler")
    ledger.put("preview.steps", 30)  # sd-scripts' own where a prompt says nothing
    ledger.put("preview.guidance", 7.5)
    _prompts(ledger, said)


def _prompts(ledger: Ledger, said: Any) -> None:
    rows = _prompt_rows(said)
    if rows is None:
        ledger.lack("sample_prompts", "that file is not on this machine: the caption is drawn")
        ledger.todo.append(f"{said} was not found: set preview.prompts.")
        return
    prompts = [str(row.get("prompt", "")) for row in rows]
    ledger.map("sample_prompts", "preview.prompts", prompts, "drawn in the model's own size")
    first = rows[0] if rows else {}
    shared = {"steps": ("preview.steps", 30), "scale": ("preview.guidance", 7.5)}
    for number, row in enumerate(rows, 1):
        for flag, value in row.items():
            shown = f"{ledger.shown('sample_prompts')} {number} {flag}"
            if flag == "prompt":
                continue
            if flag == "seed":
                _seed(ledger, shown, int(float(value)), number, first)
            elif flag in shared and number == 1 and convert.numbers(value):
                target, kind = shared[flag][0], type(shared[flag][1])
                ledger.put(target, kind(float(value)))
                ledger.note(shown, value, "mapped", f"{target} = {value}")
            elif flag in shared and first.get(flag) == value:
                ledger.note(shown, value, "implied", why="as for the first prompt")
            elif flag in shared:
                ledger.note(shown, value, "no_equal", why="all previews are drawn alike: as the first")
            else:
                ledger.note(shown, value, "no_equal", why="a preview has a prompt alone; draw others with `darkroom generate`")


def _seed(ledger: Ledger, shown: str, value: int, number: int, first: dict[str, Any]) -> None:
    if number == 1:
        ledger.put("preview.seed", value)
        ledger.note(shown, value, "mapped", f"preview.seed = {value}")
    elif convert.numbers(first.get("seed", 0)) == [value - number + 1]:
        ledger.note(shown, value, "implied", why="seeds are counted up from the first prompt's, as here")
    else:
        ledger.note(shown, value, "no_equal", why="seeds are counted up from the first prompt's")


def _prompt_rows(said: Any) -> list[dict[str, Any]] | None:
    """The prompts as dictionaries, from a file of sd-scripts or from the form's text; None where a file is not here."""
    if isinstance(said, list):
        return [row if isinstance(row, dict) else {"prompt": str(row)} for row in said]
    text = str(said)
    if not re.search(r"\.(txt|toml|json)\s*$", text) or "\n" in text.strip():
        return _lines(text)
    path = Path(text.strip())
    try:
        content = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".toml":
            table = tomllib.loads(content)["prompt"]
            return [{**{key: value for key, value in table.items() if key != "subset"}, **subset} for subset in table["subset"]]
        return _lines(content) if path.suffix == ".txt" else [row if isinstance(row, dict) else _line(row) for row in json.loads(content)]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{path}: is no file of sample prompts that sd-scripts could read ({error}).") from None


def _lines(text: str) -> list[dict[str, Any]]:
    return [_line(line) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _line(line: str) -> dict[str, Any]:
    prompt, *flags = line.strip().split(" --")
    found: dict[str, Any] = {"prompt": prompt.strip()}
    for flag in flags:
        name, _, value = flag.strip().partition(" ")
        found[SAMPLE_FLAGS.get(name.lower(), f"--{name}")] = value.strip()
    return found
