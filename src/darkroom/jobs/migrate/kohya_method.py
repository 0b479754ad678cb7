"""network_module of sd-scripts with its arguments: which method it is here, how large, and which layers it changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from darkroom.errors import RecipeError
from darkroom.jobs.migrate.kohya_blocks import blocks
from darkroom.jobs.migrate.kohya_options import BLOCKS, LYCORIS
from darkroom.jobs.migrate.kohya_rates import rates
from darkroom.jobs.migrate.options import FALSE
from darkroom.jobs.migrate.report import Ledger

NATIVE = {"networks.lora": "lora", "standard": "lora", "kohya locon": "lora", "networks.dylora": "dylora", "kohya dylora": "dylora",
          "networks.loha": "loha", "kohya loha": "loha", "networks.lokr": "lokr", "kohya lokr": "lokr"}  # fmt: skip
ALGORITHMS = {"lora": "locon", "native fine-tuning": "full"} | {name: name for name in ("locon", "loha", "lokr", "ia3", "dylora", "diag-oft", "boft", "full")}
LOWRANK, OFT, SIZELESS = ("lora", "locon", "loha", "lokr", "dylora"), ("diag-oft", "boft"), ("ia3", "full")
SETTINGS: dict[str, tuple[str, tuple[str, ...], Any]] = {
    "dora_wd": ("dora", ("locon", "loha", "lokr"), False), "factor": ("factor", ("lokr",), -1), "train_on_input": ("on_input", ("ia3",), False),
    "constraint": ("constraint", OFT, 0.0), "rescaled": ("rescale", OFT, False),
}  # fmt: skip
"""Of LyCORIS' arguments: ours, whose they are, and what is nothing."""


@dataclass(frozen=True)
class Network:
    """A network_module: its algorithm in our words ("" where it is none here), and whether it is LyCORIS' or sd-scripts' own."""

    algorithm: str
    lycoris: bool = False


@dataclass(frozen=True)
class Parts:
    """What a preset of LyCORIS changes, and what of it cannot be said here."""

    attention: bool
    feed_forward: bool
    convolution: bool
    text: bool = True
    lost: str = ""


PRESETS = {
    "full": Parts(True, True, True),
    "full-lin": Parts(True, True, False, lost="the linear layers of the residual blocks are left alone with their convolutions"),
    "attn-mlp": Parts(True, True, False),
    "attn-only": Parts(True, False, False, lost="the attention of the U-Net alone, as there; of the text encoders, where they are trained, fc1 and fc2 too"),
    "unet-only": Parts(True, True, True, text=False),
    "unet-transformer-only": Parts(True, True, False, text=False),
    "unet-convblock-only": Parts(False, False, True, text=False),
    "ia3": Parts(True, True, False, lost="attention and feed-forward layers are changed whole, rather than to_k, to_v and ff.net.2 alone"),
}


def network(ledger: Ledger) -> Network:
    """What network_module and algo name."""
    name, algorithm = str(ledger["network_module"]).lower(), str(ledger["algo"] or "locon").lower()
    if name in NATIVE:
        return Network(NATIVE[name])
    if name.startswith(("lycoris", "locon")):
        said = name.partition("/")[2] or algorithm
        return Network(ALGORITHMS.get(said, ""), True)
    return Network("")


def method(ledger: Ledger) -> None:
    """The whole table `method`, and optimizer.rate."""
    ledger.put("method.kind", "lora")
    found = network(ledger)
    preset = _preset(ledger) if found.lycoris else Parts(True, True, (ledger["conv_dim"] or 0) > 0)
    learned = rates(ledger, preset.text, both=not found.lycoris)
    convolution = bool(learned.unet) and preset.convolution and ledger["conv_dim"] != 0
    for part, changed in (("attention", preset.attention), ("feed_forward", preset.feed_forward), ("convolution", convolution)):
        ledger.put(f"method.{part}", bool(learned.unet) and changed)
    _kind(ledger, found, convolution)
    _size(ledger, found)
    _convolution(ledger, found, preset.convolution and bool(learned.unet))
    _settings(ledger, found)
    _blocks(ledger, found, bool(learned.unet))


def idle(ledger: Ledger) -> dict[str, str]:
    """Arguments of LyCORIS that another network_module takes no notice of."""
    return {} if network(ledger).lycoris else dict.fromkeys(LYCORIS, f"{ledger['network_module']} takes no notice of it: it is LyCORIS'")


def _preset(ledger: Ledger) -> Parts:
    name = str(ledger["preset"])
    found = PRESETS.get(name, Parts(True, True, True, lost=f'what "{name}" chooses is not known here: the parts of LyCORIS\' own "full" are changed'))
    if found.lost:
        ledger.lack("preset", found.lost)
    else:
        others = "with method.feed_forward, method.convolution" + ("" if found.text else " and method.text_encoders = false")
        ledger.tell("preset", f"method.attention = {str(found.attention).lower()}", others)
    return found


def _kind(ledger: Ledger, found: Network, convolution: bool) -> None:
    """A LoRA is written as one, unless it leaves modules out by chance, which LyCORIS' LoRA here can do and the plain one cannot."""
    if not found.algorithm:
        said = str(ledger["algo"] or ledger["network_module"])
        ledger.lack("network_module", f'"{said}" is no method here (yet): a LoRA of the same rank and alpha is trained instead, which is another thing')
        ledger.lack("algo", "see the module") if found.lycoris else None
        ledger.todo.append(f'The method "{said}" was replaced by a LoRA: choose method.rank and optimizer.rate for that.')
        return
    plain = found.algorithm in ("lora", "locon") and not (ledger["module_dropout"] and (not convolution or _alike(ledger, found)) and not _by_place(ledger))
    ledger.map("network_module", "method.kind", "lora" if plain else "lycoris", _differs(found))
    if plain:
        ledger.imply("algo", "it is a LoRA") if found.lycoris else None
        return
    ledger.put("method.algorithm", "locon" if found.algorithm == "lora" else found.algorithm)
    ledger.tell("algo", f"method.algorithm = {found.algorithm!r}") if "algo" in ledger.given and found.lycoris else None


def _differs(found: Network) -> str:
    match found.algorithm:
        case "dylora":
            return "the ranks in use are scaled by alpha / rank always; there they are scaled up while few of them are in use"
        case "full":
            return "the biases are left as they are, which LyCORIS changes too"
        case _:
            return ""


def _by_place(ledger: Ledger) -> bool:
    return any(ledger[key] for key in BLOCKS)


def _rank(ledger: Ledger) -> tuple[int, float]:
    """Rank and alpha; an alpha of 0 is the rank there."""
    rank = ledger["network_dim"] or 4
    return rank, float(ledger["network_alpha"] or rank)


def _conv(ledger: Ledger, found: Network) -> tuple[int, float]:
    """Rank and alpha of the convolutions: LyCORIS takes those of the rest where nothing is said, sd-scripts an alpha of 1."""
    rank, alpha = _rank(ledger)
    conv_rank = ledger["conv_dim"] or rank
    said = ledger["conv_alpha"]
    return conv_rank, (alpha if found.lycoris else 1.0) if said is None else float(said or conv_rank)


def _alike(ledger: Ledger, found: Network) -> bool:
    return _conv(ledger, found) == _rank(ledger)


def _size(ledger: Ledger, found: Network) -> None:
    rank, alpha = _rank(ledger)
    if found.algorithm in SIZELESS:
        for key in ("network_dim", "network_alpha"):
            ledger.imply(key, f"it says nothing to {found.algorithm}")
        return
    why = "" if ledger["network_dim"] else "sd-scripts takes 4"
    ledger.map("network_dim", "method.rank", rank, "the side of a block, at most" if found.algorithm in OFT else why)
    if found.algorithm in OFT:
        ledger.imply("network_alpha", f"it says nothing to {found.algorithm}")
    else:
        ledger.map("network_alpha", "method.alpha", alpha, "" if ledger["network_alpha"] else "0 is the rank there")


def _convolution(ledger: Ledger, found: Network, wanted: bool) -> None:
    """conv_dim and conv_alpha: a LoRA has them here, LyCORIS' other methods have one size for all."""
    (rank, alpha), kind = _conv(ledger, found), ledger.recipe["method"]["kind"]
    if wanted is False or ledger["conv_dim"] == 0:
        if wanted and found.lycoris:
            why = "its 1x1 layers and time projections are left alone too, which LyCORIS changes with network_dim"
            ledger.map("conv_dim", "method.convolution", False, why)
        else:
            ledger.imply("conv_dim", "the convolutions are left alone")
        ledger.imply("conv_alpha", "the convolutions are left alone")
    elif found.algorithm in SIZELESS:
        for key in ("conv_dim", "conv_alpha"):
            ledger.imply(key, f"it says nothing to {found.algorithm}")
    elif kind == "lora":
        told = ledger["conv_dim"] is not None
        if told:
            ledger.map("conv_dim", "method.conv_rank", rank)
        if told or ledger["conv_alpha"] is not None:
            left_out = "LyCORIS takes network_alpha" if found.lycoris else "sd-scripts takes 1"
            ledger.map("conv_alpha", "method.conv_alpha", alpha, left_out if ledger["conv_alpha"] is None else "")
    else:
        _one_size(ledger, found)


def _one_size(ledger: Ledger, found: Network) -> None:
    pairs = zip(("conv_dim", "conv_alpha"), _conv(ledger, found), _rank(ledger), strict=True)
    for key, own, rest in pairs:
        if own == rest or (found.algorithm in OFT and key == "conv_alpha"):
            ledger.imply(key, "as the rest, as here" if own == rest else f"it says nothing to {found.algorithm}")
        else:
            why = f"{found.algorithm} has one size for all layers here: {rest:g}"
            ledger.lack(key, why, even_left_out=key == "conv_alpha" and not found.lycoris)


def _settings(ledger: Ledger, found: Network) -> None:
    for key, (ours, algorithms, nothing) in SETTINGS.items():
        if key in LYCORIS and not found.lycoris:
            continue  # idle
        if found.algorithm not in algorithms:
            ledger.imply(key, f"it says nothing to {found.algorithm or 'this module'}")
        elif ledger[key] == nothing:
            ledger.imply(key, "off, or as it is here")
        else:
            value = max(1, ledger[key]) if key == "factor" else ledger[key]
            ledger.map(key, f"method.{ours}", value)
    if found.lycoris:
        _both(ledger, found)
    _block(ledger, found)
    dropout = float(ledger["module_dropout"])
    if not dropout:
        ledger.imply("module_dropout", "off, as here")
    elif ledger.recipe["method"]["kind"] == "lycoris" and dropout < 1:
        ledger.map("module_dropout", "method.dropout", dropout)
    else:
        ledger.lack(
            "module_dropout", "a LoRA whose convolutions or blocks have sizes or rates of their own leaves no module out by chance here: none is left out"
        )


def _both(ledger: Ledger, found: Network) -> None:
    said = ledger["decompose_both"]
    if found.algorithm != "lokr" or said is None:
        ledger.imply("decompose_both", "it says nothing to " + (found.algorithm or "this module"))
    else:
        why = f'LyCORIS takes any word for true, "{said}" too' if str(said).lower() in FALSE else ""
        ledger.map("decompose_both", "method.decompose_both", True, why)


def _block(ledger: Ledger, found: Network) -> None:
    """DyLoRA's ranks that learn together: LyCORIS calls them block_size (the GUI: unit), sd-scripts unit. Raises RecipeError."""
    if found.algorithm != "dylora":
        for key in ("unit", "block_size") if found.lycoris else ("unit",):
            ledger.imply(key, "for DyLoRA alone")
        return
    key = "unit" if not found.lycoris or (ledger["block_size"] is None and ledger["unit"] is not None) else "block_size"
    block, rank = ledger[key] or (4 if found.lycoris else 1), _rank(ledger)[0]
    if rank % block:
        raise RecipeError(f"{ledger.shown(key)} = {block}: network_dim = {rank} is no multiple of it, and that program would refuse it too. Correct it there.")
    ledger.map(key, "method.block", block, "" if ledger[key] else "what it takes where nothing is said")
    if found.lycoris and key == "block_size":
        ledger.imply("unit", "block_size counts")


def _blocks(ledger: Ledger, found: Network, unet: bool) -> None:
    """Rates and ranks by block are networks.lora's."""
    if found.algorithm == "lora" and not found.lycoris and unet:
        blocks(ledger, _rank(ledger), _conv(ledger, found))
        return
    why = f"{ledger['network_module']} takes no notice of it" if found.algorithm else "the blocks of a module that is none here"
    for key in BLOCKS:
        if found.algorithm or not ledger[key]:
            ledger.imply(key, why if unet else "the U-Net is not trained")
        else:
            ledger.lack(key, why)
