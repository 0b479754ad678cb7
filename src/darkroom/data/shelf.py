"""Where collected pictures stand: each content once, under a name that does not depend on what came first. The journal's line is written before the file."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from darkroom.data.journal import HIDDEN, Entry, Origin, Pen
from darkroom.data.manifest import ORIGINAL, Manifest, Row, is_dataset
from darkroom.data.part import unwritable
from darkroom.data.proof import Proof, Unusable
from darkroom.data.sources import Item
from darkroom.files import sha256_file

PICTURES = "pictures"
ALSO = "also from"
"""The key of `Row.extra` that lists where exact copies came from, one a line."""


class Shelf:
    """The pictures of a dataset by their content, and the journal that says where each row's picture stands."""

    def __init__(self, folder: Path, pen: Pen) -> None:
        self.folder, self.pen, self.entries = folder, pen, pen.journal.entries
        self.first: dict[str, Entry] = {}
        """By sha256, the entry whose file stands."""
        self.by_url: dict[str, Entry] = {}
        self.parts = folder / HIDDEN / "parts"
        shutil.rmtree(self.parts, ignore_errors=True)
        self.parts.mkdir(parents=True)
        self.files = {entry.file: entry.name for entry in self.entries.values() if entry.file}
        """Whose file it is."""
        rows = Manifest.open(folder).rows if is_dataset(folder) else ()
        self.foreign = {row.sha256: row for row in rows if row.sha256 and row.file not in self.files and (folder / row.file).is_file()}
        """By sha256, rows of the manifest that the journal does not know: a person's own pictures, or those of a journal that was lost."""
        self.by_source = {row.source: row for row in self.foreign.values() if row.source}
        self._settle()

    def _settle(self) -> None:
        """What stands, from what the journal says and what is there: a file that is gone must come again, and of two equal ones the first stays."""
        for entry in sorted(self.entries.values(), key=lambda entry: entry.order):
            if entry.file and _is_there(self.folder / entry.file):
                if entry.sha256 in self.first:
                    self._withdraw(entry)
                else:
                    self.first[entry.sha256] = entry
            if entry.sha256 and "://" in entry.address:
                self.by_url.setdefault(entry.address, entry)

    def _withdraw(self, entry: Entry) -> None:
        """Another row holds the same picture, and goes first."""
        self.pen.add(dataclasses.replace(entry, file=""))
        (self.folder / entry.file).unlink(missing_ok=True)

    def stands(self, entry: Entry | None) -> bool:
        """Whether the entry's picture is there, under its own name or another's."""
        return entry is not None and bool(entry.sha256) and (entry.sha256 in self.first or entry.sha256 in self.foreign)

    def place(self, entry: Entry) -> str:
        """Where the entry's picture stands."""
        return self.first[entry.sha256].file if entry.sha256 in self.first else self.foreign[entry.sha256].file

    def put(self, item: Item, origin: Origin, captions: tuple[str, ...], proof: Proof, part: Path, status: str) -> Entry:
        """Write down the picture and let it stand, unless an equal one stands that goes first. Raises Unusable, OutputError."""
        told = {"captions": captions, "licence": item.licence, "repeats": item.repeats, "extra": dict(item.extra), "status": status, "fetched": now()}
        measured = {name: getattr(proof, name) for name in ("sha256", "size", "changed", "width", "height", "format")}
        entry = Entry(origin.number, item.number, item.address, **told, **measured)  # type: ignore[arg-type]
        holder = self.first.get(proof.sha256)
        if proof.sha256 in self.foreign or (holder is not None and holder.name != entry.name and holder.order < entry.order):
            self.pen.add(entry)
        else:
            entry = dataclasses.replace(entry, file=f"{PICTURES}/{origin.label}/{item.stem}{proof.ending}")
            self._stand(entry, part)
            if holder is not None and holder.file != entry.file:
                self._withdraw(holder)
        if "://" in entry.address:
            self.by_url.setdefault(entry.address, entry)
        return entry

    def _stand(self, entry: Entry, part: Path) -> None:
        target = self.folder / entry.file
        if self.files.get(entry.file) != entry.name and target.exists() and sha256_file(target) != entry.sha256:
            raise Unusable("its name is taken", f"{target} is there and is another picture; move it away")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.pen.add(entry)
            part.replace(target)
        except OSError as error:
            raise unwritable(target, error) from None
        self.files[entry.file] = entry.name
        self.first[entry.sha256] = entry

    def same(self, item: Item, origin: Origin, captions: tuple[str, ...]) -> Entry | None:
        """The row's picture where its URL was collected before, for another source; None where it must be fetched."""
        known = self.by_url.get(item.address)
        if known is None or not self.stands(known):
            return None
        told = {"captions": captions, "licence": item.licence, "repeats": item.repeats, "extra": dict(item.extra), "file": ""}
        entry = dataclasses.replace(known, source=origin.number, number=item.number, **told)  # type: ignore[arg-type]
        self.pen.add(entry)
        return entry

    def recall(self, item: Item, origin: Origin) -> Entry | None:
        """The row as the manifest has it where the journal lost it; None where it must be brought."""
        row = self.by_source.get(_sayable(item.address))
        if row is None or self.foreign.pop(row.sha256, None) is None:
            return None
        measured = {name: getattr(row, name) for name in ("file", "sha256", "size", "changed", "width", "height", "format", "status", "fetched")}
        entry = Entry(origin.number, item.number, item.address, **measured)
        self.pen.add(entry)
        self.files[entry.file] = entry.name
        self.first[entry.sha256] = entry
        return entry

    def refuse(self, item: Item, origin: Origin, why: Unusable) -> Entry:
        """Write down why a row gave no picture; nothing is written where that is known."""
        told = {"reason": why.reason, "detail": why.detail, "temporary": why.temporary, "status": why.status}
        entry = Entry(origin.number, item.number, item.address, fetched=now(), **told)  # type: ignore[arg-type]
        before = self.entries.get(entry.name)
        if before is None or dataclasses.replace(before, fetched="") != dataclasses.replace(entry, fetched=""):
            self.pen.add(entry)
        return entry

    def retell(self, entry: Entry, captions: tuple[str, ...], item: Item | None = None) -> None:
        """What the source says of a row today, where it is other than it was."""
        told = dataclasses.replace(entry, captions=captions)
        if item is not None:
            told = dataclasses.replace(told, licence=item.licence or entry.licence, repeats=item.repeats, extra=dict(item.extra))
        if told != entry:
            self.pen.add(told)
            if entry.file:
                self.first[entry.sha256] = told

    def save(self, note: dict[str, object]) -> Manifest:
        """The manifest of what stands now: what others wrote in it is kept, also what they wrote since this run began. Raises OutputError."""
        before = Manifest.open(self.folder) if is_dataset(self.folder) else Manifest(self.folder, ())
        sources = dict(before.notes.get("collect", {})) | note
        return before.but(self._rows(before.rows), collect=sources).save()

    def _rows(self, rows: Iterable[Row]) -> Iterator[Row]:
        by_file, by_content = {}, {}
        for row in rows:
            by_file[row.file], by_content[row.sha256] = row, row
        copies: dict[str, list[Entry]] = {}
        for entry in sorted(self.entries.values(), key=lambda entry: entry.order):
            if entry.sha256:
                copies.setdefault(entry.sha256, []).append(entry)
        for sha256, entry in self.first.items():
            before = by_file.get(entry.file) or by_content.get(sha256) or Row(entry.file)
            yield _row(entry, [copy for copy in copies[sha256] if copy.name != entry.name], before)
        mine = {entry.file for entry in self.first.values()}
        yield from (row for row in by_file.values() if row.file not in mine and (self.folder / row.file).is_file())


def _is_there(path: Path) -> bool:
    """A file of no bytes is what a power cut leaves of one."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _row(entry: Entry, copies: list[Entry], before: Row) -> Row:
    """The entry as a row, with what other commands and people said of it before."""
    said = dict.fromkeys(caption for one in (entry, *copies) for caption in one.captions)
    numbered = {ORIGINAL if number == 1 else f"{ORIGINAL}-{number}": caption for number, caption in enumerate(said, 1)}
    beside = {name: caption for name, caption in before.captions.items() if before.beside and name == ORIGINAL}
    others = {name: caption for name, caption in before.captions.items() if not (said and (name == ORIGINAL or name.startswith(f"{ORIGINAL}-")))}
    extra = dict(entry.extra) | ({ALSO: "\n".join(_sayable(copy.address) for copy in copies)} if copies else {})
    told = before.but(
        file=entry.file, source=_sayable(entry.address), status=entry.status, fetched=entry.fetched, licence=entry.licence, extra=extra,
        captions=numbered | beside | others, repeats=entry.repeats if entry.repeats > 1 else before.repeats,
    )  # fmt: skip
    if before.sha256 not in ("", entry.sha256):  # changed by a person since it was collected
        return told
    return told.but(sha256=entry.sha256, size=entry.size, changed=entry.changed, width=entry.width, height=entry.height, format=entry.format)


def _sayable(path: str) -> str:
    """A path as text that every program can read: bytes that are no UTF-8 become "?"."""
    return path.encode(errors="replace").decode()


def now() -> str:
    """The time in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
