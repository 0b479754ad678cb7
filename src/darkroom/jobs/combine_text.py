"""What merging, extracting, resizing and comparing found, in lines for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]


def merge_lines(known: Facts) -> list[str]:
    """Of a merge into a base, or of several adapters into one."""
    told = [f"  {one['file']}  weight {one['weight']:g}{_places(one.get('blocks', {}))}" for one in known["adapters"]]
    return [*_into(known, told)] if "into" in known else [*_together(known, told)]


def _places(blocks: Mapping[str, float]) -> str:
    return "".join(f", {place} x {factor:g}" for place, factor in blocks.items())


def _into(known: Facts, told: list[str]) -> list[str]:
    change, rounding = known["change"], known["rounding"]
    lines = [f"{known['out']}: {known['into']} in {known['dtype']} with", *told, "", f"{'place':18}{'change':>10}{'rounding':>12}"]
    lines += [f"{place:18}{change[place]:10.2e}{rounding[place]:12.2e}" for place in [*(place for place in change if place != "all"), "all"]]
    lines += ["", f"{known['modules']} modules are changed, by {_percent(change['all'])} of their weights."]
    lines.append(f"What is written lies {_percent(rounding['all'])} of the change from the exact one, by the rounding to {known['dtype']}.")
    if known["left_out"]:
        lines.append(f"LEFT OUT: the bundled words {', '.join(known['left_out'])}, which are no weights. Give the adapter's file with --embedding to say them.")
    return lines


def _together(known: Facts, told: list[str]) -> list[str]:
    lines = [f"{known['out']}: {known['how']} in {known['dtype']}, {known['modules']} modules, rank {_ranks(known)}, of", *told, "", *_table(known)]
    lines.append(f"It lies {_percent(known['error'])} from the exact sum, {_meaning(known['how'])}.")
    if "base" in known:
        lines.append(f"Methods that depend on the base were reckoned on {known['base']}; on another base they would be others.")
    return lines + _lost(known)


def _meaning(how: str) -> str:
    return "the rounding and the ranks that were cut off" if how == "svd" else "which is rounding alone"


def extract_lines(known: Facts) -> list[str]:
    """Of a LoRA from two checkpoints."""
    lines = [f"{known['out']}: what {known['tuned']} has beyond {known['base']}, in {known['dtype']}, {known['modules']} modules, rank {_ranks(known)}", ""]
    lines += [*_table(known), f"It lies {_percent(known['error'])} from what the two differ by in these modules."]
    for label, found in sorted(known["left_out"].items(), key=lambda item: -item[1]["norm"]):
        share = "" if math.isnan(found["share"]) else f": {_percent(found['share'])} of the whole change"
        held = "no adapter holds them" if label == "vae" else "not in this LoRA"
        lines.append(f"left out: {label} ({found['tensors']} tensors), {held}{share}")
    if known["left_out"]:
        lines.append(f"All in all {_percent(known['error_of_all'])} of the change of U-Net and text encoders is missing.")
    if len(set(known["of"])) > 1:
        lines.append(f"The models lie in {known['of'][0]} and {known['of'][1]}: the rounding of one of them is a part of what was extracted.")
    return lines


def resize_lines(known: Facts) -> list[str]:
    """Of a smaller adapter."""
    before, size = ", ".join(map(str, known["ranks_before"])) or "none", known["size"] / 1e6
    lines = [f"{known['out']}: rank {before} -> {_ranks(known)} in {known['dtype']}, {known['modules']} modules, {size:.1f} MB", "", *_table(known)]
    return [*lines, f"It lies {_percent(known['error'])} from {known['from']}.", *_lost(known)]


def diff_lines(known: Facts) -> list[str]:
    """Of two adapters compared."""
    lines = [known["sentence"], "", f"{'place':18}{'|A|':>10}{'|B|':>10}{'difference':>12}{'cosine':>9}"]
    for place, found in [*known["blocks"].items(), ("all", known["overall"])]:
        cosine = "-" if found["cosine"] is None else f"{found['cosine']:.4f}"
        lines.append(f"{place:18}{found['a']:10.4f}{found['b']:10.4f}{found['difference']:12.2e}{cosine:>9}")
    lines += ["", f"{known['both']} modules in both, {len(known['only_a'])} in A alone, {len(known['only_b'])} in B alone"]
    lines += [f"{side} alone: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}" for side, names in _alone(known) if names]
    lines += [f"the word {word}: {what}" for word, what in known["words"].items()]
    return lines + [f"{key.removeprefix('ss_').removeprefix('modelspec.')}: {one or '-'} | {two or '-'}" for key, (one, two) in known["training"].items()]


def _alone(known: Facts) -> list[tuple[str, list[str]]]:
    return [("A", known["only_a"]), ("B", known["only_b"])]


def convert_lines(known: Facts) -> list[str]:
    """Of a base model in another form."""
    lines = [f"{known['out']}: {known['from']} as a {'single file' if known['to'] == 'single' else 'diffusers folder'} in {known['dtype']}"]
    if known["vae"]:
        lines[0] += f", with the VAE of {known['vae']}"
    cast = known["cast"]
    if not cast["all"]:
        return [*lines, "No number was rounded."]
    return lines + [f"{part:16} {_percent(error)} from what it was" for part, error in cast.items()]


def blend_lines(known: Facts) -> list[str]:
    """Of blended base models."""
    lines = [f"{known['out']}: {known['how']} with weight {known['weight']:g}{_places(known['blocks'])}, in {known['dtype']}", ""]
    parts = list(known["distances"][0]["parts"])
    lines.append(f"{'distance from':24}" + "".join(f"{part:>16}" for part in parts))
    return lines + [f"{found['parent'][:22]:24}" + "".join(f"{found['parts'][part]:16.2e}" for part in parts) for found in known["distances"]]


def _table(known: Facts) -> list[str]:
    lines = [f"{'place':18}{'norm':>10}{'error':>12}{'modules':>9}"]
    lines += [f"{place:18}{found['norm']:10.4f}{found['error']:12.2e}{found['modules']:9}" for place, found in known["blocks"].items()]
    return [*lines, f"{'all':18}{known['norm']:10.4f}{known['error']:12.2e}{known['modules']:9}", ""]


def _lost(known: Facts) -> list[str]:
    return [f"left out: {count} {what}" for what, count in known["left_out"].items()]


def _ranks(known: Facts) -> str:
    ranks = known["ranks"]
    if len(ranks) <= 1:
        return next(iter(ranks), "-")
    found = sorted(map(int, ranks))
    return f"{found[0]} to {found[-1]}"


def _percent(share: float) -> str:
    """0.0123 as 1.2 %, and what is below a hundredth of a per cent as a power of ten."""
    return "0" if not share else f"{share:.1e}" if share < 1e-4 else f"{share:.2%}".replace("%", " %")
