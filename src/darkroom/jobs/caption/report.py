"""What captions a dataset has, and what a run did, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from darkroom.data.captions import class_folders, orphans
from darkroom.data.manifest import ORIGINAL, Manifest
from darkroom.jobs.tokens import over

Facts = dict[str, Any]
SHOWN = 10


def table(manifest: Manifest) -> Facts:
    """How many captions by whom, which are learned from and how many are long; a few of them; and what else lies beside the pictures."""
    kept = manifest.kept
    rows = []
    for name in sorted({by for row in kept for by, text in row.captions.items() if text}):
        texts = [row.captions[name] for row in kept if row.captions.get(name)]
        used = sum((row.chosen or ORIGINAL) == name and bool(row.caption) for row in kept)
        rows.append({"by": name, "pictures": len(texts), "learned_from": used, "over_75_tokens": over(texts)})
    examples = [{"file": row.file, "by": row.chosen or ORIGINAL, "caption": row.caption} for row in kept if row.caption][:5]
    return {"pictures": len(kept), "without": sum(not row.caption for row in kept), "by": rows, "examples": examples} | _around(manifest)


def _around(manifest: Manifest) -> Facts:
    """kohya's folders with what they say, and files that caption no picture."""
    files = [row.file for row in manifest.rows]
    told = []
    for top, (repeats, text) in class_folders(files).items():
        told.append({"folder": top, "repeats": repeats, "caption": text, "pictures": sum(file.startswith(f"{top}/") for file in files)})
    return {"folders": told, "orphans": orphans(manifest.folder, files)}


def lines(done: Facts) -> list[str]:
    """What a person reads."""
    found: list[str] = []
    if "config" in done:
        found += [*_config(done["config"]), ""]
    if "captioning" in done:
        found += [*_captioning(done["captioning"]), ""]
    return found + list(_table(done["captions"])) if "captions" in done else found[:-1]


def _table(found: Facts) -> Iterator[str]:
    width = max([len(row["by"]) for row in found["by"]] + [8])
    yield f"{'by':<{width}} {'pictures':>9} {'learned from':>13} {'over 75 tokens':>15}"
    for row in found["by"]:
        yield f"{row['by']:<{width}} {row['pictures']:>9} {row['learned_from']:>13} {row['over_75_tokens'] or '-':>15}"
    otherwise = ": a training gives them the recipe's" if found["without"] else ""
    yield f"{found['without']} of {found['pictures']} pictures have no caption to learn from{otherwise}"
    for row in found["examples"]:
        yield f"  {row['file']}  ({row['by']})  {row['caption']}"
    for row in found["folders"]:
        yield f'folder {row["folder"]}/: {row["pictures"]} pictures, {row["repeats"]} times an epoch, "{row["caption"]}" where they have none of their own'
    yield from _some("caption no picture, by their names", found["orphans"])


def _captioning(found: Facts) -> Iterator[str]:
    verb = "would be captioned" if found.get("dry_run") else "captioned"
    long = f", {found['over_75_tokens']} over 75 tokens" if found["over_75_tokens"] else ""
    yield f'{found["captioned"]} {verb} as "{found["name"]}"{long}; {found["skipped"]} left as they are; {len(found["failed"])} failed'
    shown = found["examples"] if found.get("dry_run") else found["examples"][:5]
    width = max((len(row["file"]) for row in shown), default=0)
    for row in shown:
        yield f"  {row['file']:<{width}}  {row['caption']}"
        if row["before"]:
            yield f"  {'':<{width}}  before: {row['before']}"
    for file, why in list(found["failed"].items())[:SHOWN]:
        yield f"  FAILED {file}: {why}"
    yield from _some("FAILED too", list(found["failed"])[SHOWN:])
    if sidecars := found.get("sidecars"):
        if sidecars["written"] or sidecars["same"]:
            yield f"{sidecars['written']} NAME.txt written, {sidecars['same']} said it already"
        yield from _some("say something else, or another file does, and were left alone", sidecars["kept"])


def _config(found: Facts) -> Iterator[str]:
    yield f"{found['file']}: {found['changed']} pictures {'changed' if found['written'] else 'would change'}"
    for row in found["subsets"]:
        tokens = f', {row["by_class"]} called "{row["class_tokens"]}"' if row["by_class"] else ""
        yield f"  {row['place']} {row['folder']}: {row['repeats']} times an epoch, {row['captions']} captions of their own{tokens}"
    yield from (f"  {note}" for note in found["notes"])
    if found["wording"]:
        yield "For the recipe, what it says of captions at training time:"
        yield from (f"  {line}" for line in _toml(found["wording"]))
    for place, one in found.get("wordings", {}).items():
        yield f"  {place} words its captions: {', '.join(f'{key} = {value!r}' for key, value in one.items()) or 'as they are'}"


def _toml(wording: Facts) -> list[str]:
    import tomli_w

    return tomli_w.dumps({"data": {"wording": wording}}).splitlines()


def _some(what: str, files: list[str]) -> Iterator[str]:
    """How many files, and the first of them."""
    if files:
        yield f"{len(files)} files {what}: {', '.join(files[:SHOWN])}" + (" ..." if len(files) > SHOWN else "")
