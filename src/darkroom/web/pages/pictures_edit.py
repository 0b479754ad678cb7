"""What a person says of pictures, written at once: verdicts, the best of copies, captions one by one and for many."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from darkroom.jobs.edit import WORDS, Word, choose, overrule, prefer, write_captions
from darkroom.jobs.rewrite import Rewrite, rewritten
from darkroom.jobs.sheet import Sheet
from darkroom.jobs.tokens import CHUNK, count_tokens
from darkroom.web.answer import Answer, body, text, texts
from darkroom.web.grounds import Refused
from darkroom.web.pages.pictures_desk import Desk, files_of, rows_of

LONGEST = 20_000
"""Characters of a caption."""
SHOWN = 200
"""Captions of a preview."""
Tree = dict[str, Any]


def routes(desk: Desk) -> list[Route]:
    """/api/pictures/..., each a change that is on the disk when it is answered."""

    def change(work: Any) -> Any:
        async def handler(request: Request) -> Response:
            tree = await body(request)
            return Answer(await asyncio.to_thread(work, desk, tree))

        return handler

    works = {"verdict": _verdict, "prefer": _prefer, "captions": _captions, "choose": _choose, "rewrite": _rewrite, "tokens": _tokens}
    return [Route(f"/api/pictures/{name}", change(work), methods=["POST"]) for name, work in works.items()]


def _verdict(desk: Desk, tree: Tree) -> Tree:
    """{"dataset", "word": keep|reject|undo, "files" or "query"}."""
    word = text(tree, "word")
    if word not in WORDS:
        raise Refused(f'"word" is one of {", ".join(WORDS)}.')
    before, files = _asked(desk, tree)
    return _done(before, desk.sheets.change(before.manifest.folder, lambda manifest: overrule(manifest, files, cast(Word, word))), len(files))


def _prefer(desk: Desk, tree: Tree) -> Tree:
    """{"dataset", "file"}: it stays of its copies."""
    before, file = desk.sheet(text(tree, "dataset")), text(tree, "file")
    return _done(before, desk.sheets.change(before.manifest.folder, lambda manifest: prefer(manifest, file)), 1)


def _captions(desk: Desk, tree: Tree) -> Tree:
    """{"dataset", "captions": {file: text}, "seen": {file: text}}. Answers "stale": captions that were changed meanwhile, with what they say now."""
    captions, seen = _told(tree, "captions"), _told(tree, "seen")
    before, stale = desk.sheet(text(tree, "dataset")), dict[str, str]()

    def change(manifest: Any) -> Any:
        written = write_captions(manifest, captions, seen)
        stale.clear()
        stale.update(written.stale)
        return written.manifest

    after = desk.sheets.change(before.manifest.folder, change)
    return _done(before, after, len(captions) - len(stale)) | {"stale": stale, "tokens": count_tokens(captions.values())}


def _choose(desk: Desk, tree: Tree) -> Tree:
    """{"dataset", "by", "files" or "query"}."""
    by = text(tree, "by", longest=200)
    before, files = _asked(desk, tree)
    after = desk.sheets.change(before.manifest.folder, lambda manifest: choose(manifest, files, by))
    return _done(before, after, sum(bool(row.captions.get(by)) for row in rows_of(after, files)))


def _rewrite(desk: Desk, tree: Tree) -> Tree:
    """{"dataset", "rewrite": {...}, "files" or "query", "apply": bool, "stamp"}: what changes; and with "apply" it does, unless the dataset is another
    than the one with that stamp, which the person looked at.
    """
    said = tree.get("rewrite")
    rewrite = Rewrite.from_tree(said if isinstance(said, dict) else {}, "captions")
    before, files = _asked(desk, tree)
    changes = rewritten(rows_of(before, files), rewrite)
    counts = count_tokens(after for _, after in changes.values())
    long = sum(counts[after] > CHUNK for _, after in changes.values())
    if tree.get("apply") is not True:
        shown = [{"file": file, "before": old, "after": new, "tokens": counts[new]} for file, (old, new) in list(changes.items())[:SHOWN]]
        return {"stamp": before.stamp, "asked": len(files), "changed": len(changes), "long": long, "shown": shown}
    if text(tree, "stamp") != before.stamp:
        raise Refused("The dataset was changed since this was shown, here or by a job. Look at what would change again.")
    new, seen = {file: after for file, (_, after) in changes.items()}, {file: old for file, (old, _) in changes.items()}
    after = desk.sheets.change(before.manifest.folder, lambda manifest: write_captions(manifest, new, seen).manifest)
    return _done(before, after, len(changes)) | {"long": long}


def _tokens(desk: Desk, tree: Tree) -> Tree:
    """{"texts": [...]}: the tokens of each."""
    asked = texts(tree, "texts", 1000)
    counts = count_tokens(" ".join(one.split()) for one in asked)
    return {"tokens": [counts[" ".join(one.split())] for one in asked], "limit": CHUNK}


def _asked(desk: Desk, tree: Tree) -> tuple[Sheet, list[str]]:
    sheet = desk.sheet(text(tree, "dataset"))
    return sheet, files_of(sheet, tree)


def _told(tree: Tree, key: str) -> dict[str, str]:
    value = tree.get(key, {})
    if not isinstance(value, dict) or not all(isinstance(one, str) and len(one) <= LONGEST for one in value.values()):
        raise Refused(f'"{key}" must be texts of at most {LONGEST:,} characters, by file.')
    return value


def _done(before: Sheet, after: Sheet, count: int) -> Tree:
    return {"stamp": after.stamp, "done": count, "before": before.stamp, **after.counts}
