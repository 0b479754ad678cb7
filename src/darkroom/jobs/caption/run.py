"""Captions for the pictures of a dataset, kept beside those that are there. What was stopped goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator

from darkroom.captioning import Captioner, captioner
from darkroom.data.manifest import ORIGINAL, Manifest, Row
from darkroom.data.wording import framed, has_word
from darkroom.errors import ModelError
from darkroom.files import sha256_bytes
from darkroom.jobs.adopted import adopted
from darkroom.jobs.caption.journal import Journal
from darkroom.jobs.caption.sidecars import Sidecars
from darkroom.jobs.caption.writing import writing
from darkroom.jobs.engine import Engine, Local
from darkroom.jobs.tokens import over
from darkroom.jobs.watch import Silent, Watcher
from darkroom.spec import Spec

EXAMPLES = 20
PATIENCE = 16
"""Pictures in a row on which a model may fail before the run is given up: then it is not the pictures' fault."""


class Captioning(Spec):
    """Who captions which pictures, and what becomes of it."""

    by: Captioner
    name: str = Field("", description='Under which name captions are kept; empty: the captioner\'s kind. "original" is what pictures came with.')
    trigger: str = Field("", description="A word put in front of captions that do not hold it.")
    prefix: str = Field("", description="Put in front of every caption, before the trigger.")
    suffix: str = Field("", description="Put behind every caption.")
    choose: bool = Field(True, description="Whether a training learns from these captions from now on.")
    again: bool = Field(False, description="Caption anew what has a caption of this name.")
    only_missing: bool = Field(False, description="Pictures without a caption by anybody else alone.")
    sidecars: bool = Field(False, description="Also write NAME.txt beside pictures, for other programs.")

    @classmethod
    def ask(cls, by: str, settings: dict[str, Any], **rest: Any) -> Self:
        """The captioner `by` with its settings, and the rest. Raises RecipeError."""
        return cls.from_tree({"by": captioner(by, settings), **rest}, "caption")

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if name == ORIGINAL or (name and not name.replace("-", "").replace("_", "").replace(".", "").isalnum()):
            raise ValueError(f'must be letters, digits, "-", "_" and ".", and not "{ORIGINAL}", which is what pictures came with')
        return name

    @property
    def key(self) -> str:
        """Under which name captions are kept."""
        return self.name or self.by.kind

    @property
    def digest(self) -> str:
        """A name for all that a caption depends on besides its picture."""
        return sha256_bytes("\n".join((self.by.model_dump_json(exclude={"batch"}), self.trigger, self.prefix, self.suffix)).encode())


@dataclass
class Outcome:
    """What became of the pictures: captions by file, and those that got none, with the reason."""

    captions: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def caption_dataset(
    folder: Path, wanted: Captioning, device: str = "auto", watcher: Watcher | None = None, first: int = 0, engine: Engine | None = None
) -> tuple[Manifest, dict[str, Any]]:  # fmt: skip
    """Caption the kept pictures that have no caption of this name yet; `first` > 0: so many of them, shown and not written.

    Captions are written down as they come, in the rows' order, so that a run that was stopped loses at most a batch of each worker. The engine's workers hold
    the captioner; journal and manifest are this process's. Raises DatasetError, ModelError, RecipeError, OutputError.
    """
    watcher, engine = watcher or Silent(), engine or Local()
    begun = time.perf_counter()
    manifest, changes = adopted(folder, watcher)
    engine.reaches(folder)
    todo = _todo(manifest, wanted)
    skipped = len(manifest.kept) - len(todo)
    if first:
        outcome = _written(manifest, todo[:first], wanted, device, watcher, None, engine)
        return manifest, _facts(manifest, wanted, outcome, skipped) | {"dry_run": True}
    if changes:
        manifest = manifest.save()  # what was hashed need not be hashed again if this is stopped
    with Journal(folder, wanted.key, wanted.digest, watcher) as journal:
        try:
            outcome = _written(manifest, todo, wanted, device, watcher, journal, engine)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Stopped. What was captioned is kept, and the same command goes on from here.") from None
        done, sidecars = _laid_down(manifest, wanted, outcome)
        journal.remove()
    return done, _facts(done, wanted, outcome, skipped) | {"sidecars": sidecars.counts(), "seconds": round(time.perf_counter() - begun, 2)}


def _todo(manifest: Manifest, wanted: Captioning) -> list[Row]:
    """Which pictures are to be captioned."""
    key = wanted.key
    rows = [row for row in manifest.kept if wanted.again or not row.captions.get(key)]
    return [row for row in rows if not any(text for by, text in row.captions.items() if by != key)] if wanted.only_missing else rows


def _written(
    manifest: Manifest, todo: Sequence[Row], wanted: Captioning, device: str, watcher: Watcher, journal: Journal | None, engine: Engine
) -> Outcome:  # fmt: skip
    """The captions of these pictures, those of a stopped run first."""
    outcome = Outcome(journal.found(todo) if journal else {})
    left = [row for row in todo if row.file not in outcome.captions]
    if not left:
        return outcome
    if wanted.by.kind == "template":  # looks at no picture, and knows a word by all rows: nothing to share
        engine = Local()
    work = writing(manifest, wanted.by, device, todo, here=engine.name == "local" and engine.workers < 2)
    if wanted.by.kind == "pocket" and wanted.by.model == "pocket":
        watcher.say("The pocket knows its own drawings and no photographs: for those take --with blip or vlm.")
    said = engine.each(work, left)
    for start in range(0, len(left), work.share):
        batch = left[start : start + work.share]
        told = dict(zip((row.file for row in batch), said, strict=False))
        found = {file: dressed(one.text, wanted) for file, one in told.items() if not one.why}
        outcome.captions |= found
        outcome.failed |= {file: one.why for file, one in told.items() if one.why}
        if journal:
            journal.add([row for row in batch if row.file in found], found)
        watcher.move("captioning", len(todo) - len(left) + start + len(batch), len(todo), f"{len(outcome.failed)} failed" if outcome.failed else "")
        if not outcome.captions and len(outcome.failed) >= PATIENCE:
            raise ModelError(f"the first {len(outcome.failed)} pictures could not be captioned, the last because: {list(outcome.failed.values())[-1]}")
    return outcome


def dressed(text: str, wanted: Captioning) -> str:
    """The caption with prefix, trigger and suffix: "by x, TOK, a cat on a sofa". A trigger that is there already is not doubled."""
    trigger = wanted.trigger.strip()
    called = text if not trigger or has_word(text, trigger) else f"{trigger}, {text}"
    return framed(called, wanted.prefix, wanted.suffix)


def _laid_down(manifest: Manifest, wanted: Captioning, outcome: Outcome) -> tuple[Manifest, Sidecars]:
    """The manifest with the captions, saved, and the files beside the pictures."""
    sidecars, rows = Sidecars(manifest, wanted.key, wanted.sidecars), []
    mine = {row.file for row in _todo(manifest, wanted.model_copy(update={"again": True}))}
    for row in manifest.rows:
        text = outcome.captions.get(row.file)
        after = row if text is None else row.but(captions={**row.captions, wanted.key: text})
        if wanted.choose and row.file in mine and after.captions.get(wanted.key):
            after = after.but(chosen=wanted.key)
        rows.append(after)
    note = {"by": wanted.by.model_dump(mode="json"), "digest": wanted.digest, "pictures": len(outcome.captions), "failed": len(outcome.failed)}
    notes = {**manifest.notes.get("caption", {}), wanted.key: note}
    done = manifest.but(rows, caption=notes) if rows != list(manifest.rows) else manifest
    done = done.save() if done is not manifest else manifest
    saved = {row.file: row for row in done.rows}  # and maybe others, which another command brought meanwhile
    for before in manifest.rows:
        if before.file in saved:
            sidecars.lay(before, saved[before.file])
    return done, sidecars


def _facts(manifest: Manifest, wanted: Captioning, outcome: Outcome, skipped: int) -> dict[str, Any]:
    texts, rows = outcome.captions, {row.file: row for row in manifest.rows}
    examples = [{"file": file, "caption": texts[file], "before": rows[file].captions.get(ORIGINAL, "")} for file in list(texts)[:EXAMPLES]]
    return {
        "name": wanted.key, "captioned": len(texts), "skipped": skipped, "failed": outcome.failed,
        "over_75_tokens": over(texts.values()), "examples": examples,
    }  # fmt: skip
