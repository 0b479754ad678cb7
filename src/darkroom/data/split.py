"""Which pictures are learned from and which are held out to measure by: whole clusters of copies on one side, and no picture changes sides later."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from darkroom.data.manifest import Row, Split
from darkroom.errors import DatasetError, RecipeError
from darkroom.values import seed_for

MOST = 0.5  # of the pictures may be held out
FEW = 5  # fewer to learn from than this is worth a word


@dataclass(frozen=True)
class Sides:
    """The side of every row by its file, and what was decided on the way."""

    of: dict[str, Split]
    wanted: int
    """Kept pictures that were to be held out."""
    held_out: int
    """Kept pictures that are."""
    train: int
    moved: tuple[str, ...]
    """Files that were held out and are learned from now, because a copy of them is."""


def sides(rows: Iterable[Row], amount: str, seed: int, again: bool = False) -> Sides:
    """Split the rows: `amount` is a count ("12"), a part of the kept pictures ("0.1", "10%"), or "0" for no split.

    Copies (by `cluster`, by equal bytes, and so on through others) share a side; they count as the kept pictures among them. Sides are kept from a former
    split, so that later pictures never move earlier ones, unless `again`; undecided clusters are held out in the order of a hash of (seed, bytes) while
    they fit into the amount. A cluster with members on both sides goes to the learned ones: they may have been learned from already.
    Raises DatasetError for too few pictures, RecipeError for an amount that is none.
    """
    listed = list(rows)
    kept = sum(row.kept for row in listed)
    groups = sorted(clusters(listed), key=lambda group: seed_for(seed, "split", min(row.sha256 or row.file for row in group)))
    wanted = held_out_count(amount, kept)
    if wanted == 0:
        return Sides({row.file: "" for row in listed}, 0, 0, kept, ())
    _check_enough(wanted, kept, sum(_size(group) > 0 for group in groups))
    former = [_former(group) if not again else "" for group in groups]
    chosen = _chosen(groups, former, wanted)
    found: dict[str, Split] = {row.file: side for group, side in zip(groups, chosen, strict=True) for row in group}
    held = sum(_size(group) for group, side in zip(groups, chosen, strict=True) if side == "held_out")
    if held == 0:
        raise DatasetError(
            "every group of copies is larger than what is to be held out, or nothing is left to hold out. Hold out more, or reject copies with "
            "`darkroom screen`."
        )
    moved = () if again else tuple(sorted(row.file for row in listed if row.split == "held_out" and found[row.file] == "train"))
    return Sides(found, wanted, held, kept - held, moved)


def _chosen(groups: Sequence[Sequence[Row]], former: Sequence[Split], wanted: int) -> list[Split]:
    """A side for every group, in order; those of rejected pictures alone stay undecided."""
    held = sum(_size(group) for group, side in zip(groups, former, strict=True) if side == "held_out")
    found: list[Split] = list(former)
    for index, group in enumerate(groups):
        size = _size(group)
        if not found[index] and size:
            taken = held + size <= wanted
            found[index] = "held_out" if taken else "train"
            held += size if taken else 0
    if held == 0:  # each cluster is larger than the amount: the smallest of the new ones, where half is left to learn from
        new = [index for index, side in enumerate(former) if not side and groups[index] and _size(groups[index])]
        smallest = min(new, key=lambda index: _size(groups[index]), default=None)
        if smallest is not None and _size(groups[smallest]) * 2 <= sum(map(_size, groups)):
            found[smallest] = "held_out"
    return found


def held_out_count(amount: str, kept: int) -> int:
    """Pictures to hold out of `kept`: at least one for a part above 0. Raises RecipeError."""
    number = re.fullmatch(r"\s*(\d+|\d*\.\d+)\s*(%?)\s*", amount)
    if not number:
        raise RecipeError(f'--held-out {amount}: write a count ("12"), or a part of the pictures ("0.1" or "10%").')
    value = float(number[1]) / 100 if number[2] else float(number[1])
    if not number[2] and "." not in number[1]:
        return int(value)
    if value > MOST:
        raise RecipeError(f"--held-out {amount}: is more than half of the pictures. Give a part of at most {MOST}, or a count.")
    return max(1, round(value * kept)) if value > 0 else 0


def _check_enough(wanted: int, kept: int, groups: int) -> None:
    if kept < 2 or groups < 2:
        what = f"{kept} pictures are kept" if kept < 2 else f"the {kept} kept pictures are copies of one another"
        raise DatasetError(f"{what}: nothing can be held out of that. Add pictures, or train without (--held-out 0).")
    if wanted > kept * MOST:
        raise DatasetError(f"--held-out {wanted}: is more than half of the {kept} kept pictures. Hold out at most {kept // 2}.")


def clusters(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in groups of copies: those that share a cluster, or their bytes, and whoever is so bound to one of them."""
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        parents.setdefault(name, name)
        while parents[name] != name:
            parents[name] = parents[parents[name]]
            name = parents[name]
        return name

    for row in rows:
        here = f"row {row.file}"
        for bond in (f"row {row.cluster}" if row.cluster else "", f"bytes {row.sha256}" if row.sha256 else ""):
            if bond:
                parents[root(bond)] = root(here)
    grouped = defaultdict(list)
    for row in rows:
        grouped[root(f"row {row.file}")].append(row)
    return list(grouped.values())


def _size(group: Sequence[Row]) -> int:
    return sum(row.kept for row in group)


def _former(group: Sequence[Row]) -> Split:
    """The side that a group has from before; "train" where its members disagree."""
    known = {row.split for row in group if row.split}
    return "train" if "train" in known else "held_out" if known else ""


def words(found: Sides, screened: bool) -> list[str]:
    """What a person should know about this split."""
    told = []
    if not screened:
        told.append("the pictures were not screened: only copies with equal bytes are known. `darkroom screen` finds near and mirrored ones, which leak too")
    if found.train < FEW:
        told.append(f"{found.train} pictures are left to learn from; a LoRA wants about 10")
    if found.held_out != found.wanted:
        told.append(f"{found.held_out} are held out and not {found.wanted}, because copies stay together and no picture changes sides")
    if found.moved:
        told.append(f"{len(found.moved)} were held out and are learned from now, because copies of them are: {', '.join(found.moved[:5])}")
    return told
