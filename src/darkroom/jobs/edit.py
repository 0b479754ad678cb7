"""What a person says of pictures, written at once: which are kept, which is the best of its copies, what each is called.

Nobody's work is lost: an edit is a function of the rows, and where another wrote the manifest in between it is made again on what lies there now.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from darkroom.data.adopt import adopt
from darkroom.data.captions import one_line
from darkroom.data.look import Look
from darkroom.data.manifest import ORIGINAL, Manifest, Overtaken, Row, Verdict
from darkroom.data.screening import DUPLICATE
from darkroom.errors import DatasetError
from darkroom.jobs.looks import Memory
from darkroom.jobs.screen import NOTE, duplicate_of, summary, worth

Word = Literal["keep", "reject", "undo"]
WORDS: dict[str, Verdict] = {"keep": "keep", "reject": "reject", "undo": ""}
HAND = "hand"
"""Under which name captions are kept that a person wrote."""
TRIES = 20
Change = Callable[[Manifest], Manifest]


def edit(folder: Path, change: Change, known: Manifest | None = None) -> Manifest:
    """Change the dataset as it is now, and save it. `known` is what the caller believes it to be: where it still holds nothing is read again.

    Raises DatasetError, OutputError, and what `change` raises.
    """
    for _ in range(TRIES):
        manifest = known or adopt(folder)[0]
        try:
            changed = change(manifest)
            return changed if changed is manifest else changed.save()
        except Overtaken:
            known = None
    raise Overtaken(f"{folder}: another command writes it all the time. Try again when it is done.")


def overrule(manifest: Manifest, files: Iterable[str], word: Word) -> Manifest:
    """A person's word on these files: what `darkroom screen --keep`, `--reject` and `--undo` say.

    Of copies the best is chosen anew among those that the last screening put together; it is the next one that looks at the pictures again.
    Raises DatasetError for a file that is not in the dataset.
    """
    wanted, verdict = _there(manifest, files), WORDS[word]
    return _judged(manifest, dict.fromkeys(wanted, verdict))


def prefer(manifest: Manifest, file: str) -> Manifest:
    """The one of its copies that stays; a person's words on the others are taken back. Raises DatasetError where it has no copies."""
    _there(manifest, [file])
    cluster = next(row.cluster for row in manifest.rows if row.file == file)
    if not cluster:
        raise DatasetError(f"{file}: has no copies that screening found.")
    said: dict[str, Verdict] = {row.file: "" for row in manifest.rows if row.cluster == cluster and row.overruled == "keep"}
    return _judged(manifest, said | {file: "keep"})


def _judged(manifest: Manifest, said: Mapping[str, Verdict]) -> Manifest:
    """With these words, the best of each cluster, and the counts of the screening's note."""
    if all(row.overruled == said.get(row.file, row.overruled) for row in manifest.rows):
        return manifest
    rows = [row.but(overruled=said[row.file]) if row.file in said else row for row in manifest.rows]
    touched = {row.cluster for row in rows if row.cluster and row.file in said}
    best = {row.file: row for cluster in touched for row in _ranked([row for row in rows if row.cluster == cluster])}
    rows = [best.get(row.file, row) for row in rows]
    note = manifest.notes.get(NOTE)
    if not note:
        return manifest.but(rows)
    counts = {name: value for name, value in summary(rows, ()).items() if name not in ("unknown", "notes")}
    return manifest.but(rows, **{NOTE: {**note, **counts}})


def _ranked(copies: Sequence[Row]) -> list[Row]:
    """Copies of one picture, with the best of them named anew and the others rejected for it."""
    looks = _looks(copies)
    own = {row.file: tuple(reason for reason in row.reasons if not reason.startswith(f"{DUPLICATE}: ")) for row in copies}
    best = min(copies, key=lambda row: worth(row, bool(own[row.file]), looks[row.file]))
    found = []
    for row in copies:
        reasons = own[row.file] if row is best else (*own[row.file], duplicate_of(row, best))
        found.append(row.but(cluster=best.file, reasons=reasons, verdict="reject" if reasons else "keep"))
    return found


def _looks(rows: Sequence[Row]) -> dict[str, Look]:
    """What screening saw of them; of one that it does not remember what its row says."""
    with Memory() as memory:
        seen = {row.file: memory.find(row.sha256) for row in rows}
    return {row.file: found.look if (found := seen[row.file]) else Look(width=row.width, height=row.height, bytes=row.size) for row in rows}


@dataclass(frozen=True)
class Written:
    """What came of captions that a person wrote."""

    manifest: Manifest
    stale: dict[str, str]
    """Files whose caption had been changed meanwhile, with what it says now: they are left as they are."""


def write_captions(manifest: Manifest, captions: Mapping[str, str], seen: Mapping[str, str] | None = None, by: str = HAND) -> Written:
    """The captions under the name `by`, and learned from; what others wrote is kept. An empty one takes back what `by` said.

    `seen` is what the person saw before writing: where that has changed, nothing is written over. Raises DatasetError for a file that is not there.
    """
    wanted = _there(manifest, captions)
    now = {row.file: row.caption for row in manifest.rows if row.file in wanted}
    texts = {file: one_line(captions[file]) for file in wanted}
    stale = {file: now[file] for file in wanted if seen is not None and file in seen and now[file] not in (one_line(seen[file]), texts[file])}
    rows = [_said(row, texts[row.file], by) if row.file in texts and row.file not in stale else row for row in manifest.rows]
    return Written(manifest.but(rows) if rows != list(manifest.rows) else manifest, stale)


def _said(row: Row, text: str, by: str) -> Row:
    if text == row.caption:
        return row
    if text:
        return row.but(captions={**row.captions, by: text}, chosen=by)
    rest = {name: told for name, told in row.captions.items() if name != by}
    chosen = "" if ORIGINAL in rest or not rest else next(iter(rest))
    return row.but(captions=rest, chosen=chosen)


def choose(manifest: Manifest, files: Iterable[str], by: str) -> Manifest:
    """Learn from what `by` wrote, where it wrote something; ORIGINAL is what pictures came with. Raises DatasetError where it wrote of none of them."""
    wanted = _there(manifest, files)
    if not any(row.captions.get(by) for row in manifest.rows if row.file in wanted):
        known = sorted({name for row in manifest.rows if row.file in wanted for name in row.captions})
        raise DatasetError(
            f'"{by}" wrote no caption of {"it" if len(wanted) == 1 else f"these {len(wanted)}"}. Captions are by: {", ".join(known) or "nobody"}.'
        )
    chosen = "" if by == ORIGINAL else by
    rows = [row.but(chosen=chosen) if row.file in wanted and row.captions.get(by) else row for row in manifest.rows]
    return manifest.but(rows) if rows != list(manifest.rows) else manifest


def _there(manifest: Manifest, files: Iterable[str]) -> Collection[str]:
    """The files, each of which must have a row. Raises DatasetError."""
    wanted = dict.fromkeys(files)
    missing = wanted.keys() - {row.file for row in manifest.rows}
    if missing:
        first = min(missing)
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise DatasetError(f"{first}{more}: is not in {manifest.folder} any more. Look at the list again.")
    return wanted.keys()
