"""A rating sheet: one HTML page that holds a session's pairs and works anywhere without a network; and taking in the answers that it gives back.

Nothing in the page tells arms apart: no names, no file names, no metadata of the pictures (a Darkroom PNG carries its own request), ids that say nothing.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image, ImageOps
from pydantic import Field

from darkroom.errors import RunError
from darkroom.evidence.answers import answers_file, append, read_answers
from darkroom.evidence.rating import Pair, Session, line, open_session
from darkroom.fence import let
from darkroom.files import write_text
from darkroom.spec import Spec
from darkroom.statistics.choice import Answer

LOSSLESS = 512  # pixels of the longer side up to which pictures stay PNG; above, JPEG of quality 95 without colour subsampling weighs far less
TINY = 128  # pixels: narrower pictures are enlarged with hard pixel edges
LARGEST = 16 << 20  # bytes of an answers file: 60 pairs take 10 kB


class Said(Spec):
    """One answer of a sheet."""

    pair: str = Field(min_length=1, max_length=64)
    seal: str = Field(min_length=1, max_length=64)
    """Of the pictures that were looked at."""
    answer: Answer
    seconds: float | None = Field(None, ge=0, le=1e7)
    """From seeing the pair to answering."""


class Sheet(Spec):
    """What a filled-in sheet gives back."""

    darkroom_ratings: Literal[1]
    rater: str
    seed: int
    pairs: int
    """How many were asked for when the sheet was made."""
    answers: tuple[Said, ...] = Field(max_length=100_000)


def write_sheet(session: Session, out: Path) -> dict[str, Any]:
    """Write the page with every pair of the session that has no answer yet; returns how many, and the page's size in bytes. Raises RunError and OutputError."""
    done = read_answers(answers_file(session.folder, session.rater)).standing
    pairs = [pair for pair in session.pairs if pair.id not in done]
    if not pairs:
        raise RunError(
            f"{session.folder}: {session.rater} has answered all {len(session.pairs)} pairs. Ask for more with --pairs, or see the result without --rater."
        )
    html = page(session, pairs)
    write_text(out, html)
    return {"pairs": len(pairs), "answered": len(session.pairs) - len(pairs), "bytes": len(html.encode())}


def page(session: Session, pairs: Sequence[Pair]) -> str:
    """The whole page. Raises RunError for a picture that cannot be read."""
    here = Path(__file__)
    script = here.with_name("rating_sheet.js").read_text("utf-8")
    env = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    told = {"darkroom_ratings": 1, "rater": session.rater, "seed": session.seed, "pairs": session.asked}
    shown = [
        {"pair": pair.id, "seal": pair.seal, "prompt": pair.prompt, "left": picture(session, pair, "left"), "right": picture(session, pair, "right")}
        for pair in pairs
    ]
    return env.from_string(here.with_name("rating_sheet.html.j2").read_text("utf-8")).render(
        script=Markup(script),
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(json.dumps({"sheet": told, "pairs": shown}, ensure_ascii=False).replace("<", "\\u003c")),
        total=len(pairs),
    )


def picture(session: Session, pair: Pair, side: Literal["left", "right"]) -> dict[str, Any]:
    """A side's picture for a page: pixels and nothing else, as a data URI, with its size. Raises RunError where it cannot be read."""
    file = session.folder / pair.files[0 if side == "left" else 1]
    try:
        with Image.open(let(file)) as opened:
            shown = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise RunError(f"{file}: the picture cannot be shown: {error}. Run the trial again in the same folder: it draws what is missing.") from None
    clean = Image.new("RGB", shown.size)
    clean.paste(shown)  # a new picture has no metadata to carry along
    small, data = max(shown.size) <= LOSSLESS, io.BytesIO()
    clean.save(data, "PNG") if small else clean.save(data, "JPEG", quality=95, subsampling=0)
    uri = f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
    return {"uri": uri, "width": shown.width, "height": shown.height, "tiny": shown.width < TINY}


def take_answers(folder: Path, rater: str, file: Path) -> dict[str, Any]:
    """Append a sheet's answers to the rater's file; those that are there already are not written again, and one that was changed takes the old one back.

    Returns how many were new, changed and known, and which were refused because their pictures are no longer those that were looked at. Raises RecipeError for
    a file that is none of a sheet's, and RunError where it is another rater's, another trial's, or where all are refused; then nothing is written.
    """
    sheet = _read(file)
    if sheet.rater != rater:
        raise RunError(f'{file}: these are the answers of "{sheet.rater}", not of "{rater}". Give --rater {sheet.rater}, or that rater\'s own file.')
    session = open_session(folder, rater, sheet.pairs, sheet.seed)
    known = {pair.id: pair for pair in session.pairs}
    strangers = [said for said in sheet.answers if said.pair not in known]
    if strangers:
        raise RunError(
            f"{file}: {len(strangers)} of its {len(sheet.answers)} pairs are not in {folder}: the sheet was made from another trial, or this one's arms, "
            "prompts or faults were changed since. Make a new sheet; nothing was taken in."
        )
    answers = {said.pair: said for said in sheet.answers}  # the last one counts
    fresh = [said for said in answers.values() if said.seal == known[said.pair].seal]
    refused = [f"{known[said.pair].prompt}, seed {known[said.pair].seed}" for said in answers.values() if said.seal != known[said.pair].seal]
    if refused and not fresh:
        raise RunError(f"{file}: the pictures of all its pairs were changed since they were looked at; nothing was taken in. Make a new sheet.")
    return {**_take(session, known, fresh), "refused": refused}


def _take(session: Session, known: dict[str, Pair], fresh: Sequence[Said]) -> dict[str, int]:
    path = answers_file(session.folder, session.rater)
    standing, lines, new, changed = read_answers(path).standing, [], 0, 0
    for said in fresh:
        before = standing.get(said.pair)
        if before and (before["answer"], before["seal"]) == (said.answer, said.seal):
            continue
        lines += ([{"undo": said.pair}] if before else []) + [line(known[said.pair], said.answer, said.seconds)]
        new, changed = new + (not before), changed + bool(before)
    if lines:
        append(path, lines)
    return {"new": new, "changed": changed, "known": len(fresh) - new - changed}


def _read(file: Path) -> Sheet:
    """Raises RunError where it cannot be read, RecipeError where it is none of a sheet's."""
    try:
        if file.stat().st_size > LARGEST:
            raise RunError(f"{file}: {file.stat().st_size:,} bytes are too many for a sheet's answers. Give the file that the page saved, not the page itself.")
        tree = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RunError(f"{file}: the answers cannot be read: {error.strerror}. Give the file that the sheet's page saved.") from None
    except (ValueError, RecursionError):
        raise RunError(f"{file}: this is no JSON. Give the file that the sheet's page saved, such as ann-answers.json.") from None
    if not isinstance(tree, dict):
        raise RunError(f"{file}: these are no sheet's answers. Give the file that the sheet's page saved, such as ann-answers.json.")
    return Sheet.from_tree(tree, str(file))
