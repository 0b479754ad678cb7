"""What sd-scripts' settings say of captions: which files they are read from, and how they are worded each time they are shown."""

from __future__ import annotations

from typing import Any

from darkroom.data.kohya import WORDING
from darkroom.jobs.migrate.report import Ledger

OFF = "off, or as it is here"
STILL = "nothing is shuffled or left out there"


def captions(ledger: Ledger) -> None:
    """The endings of caption files, and data.wording."""
    _files(ledger)
    ledger.map("caption_dropout_rate", "data.wording.dropout", float(ledger["caption_dropout_rate"]))
    _set(ledger, "shuffle_caption", bool(ledger["shuffle_caption"]), False)
    _set(
        ledger,
        "caption_tag_dropout_rate",
        float(ledger["caption_tag_dropout_rate"]),
        0.0,
        "never the tag that holds the trigger word, where there it may go too",
    )
    _tags(ledger, moved=bool(ledger["shuffle_caption"]) or ledger["caption_tag_dropout_rate"] > 0)


def _files(ledger: Ledger) -> None:
    key = "caption_extention" if ledger["caption_extention"] else "caption_extension"
    ending = str(ledger[key])
    if key == "caption_extention":
        ledger.imply("caption_extension", "caption_extention counts")
    match ending.lower():
        case ".txt":
            ledger.imply(key, "NAME.txt is read here too; all its lines rather than the first")
        case ".caption":
            why = "NAME.caption is read here, but NAME.txt as well, which sd-scripts ignores then: no caption is ignored in silence"
            ledger.lack(key, why, even_left_out=True)
        case _:
            ledger.lack(key, "captions are read from NAME.txt and NAME.caption: rename the files, or move those away that must not be read")


def _set(ledger: Ledger, key: str, value: Any, neutral: Any, why: str = "") -> None:
    if value == neutral:
        ledger.imply(key, OFF)
    else:
        ledger.map(key, f"data.wording.{WORDING[key]}", value, why)


def _tags(ledger: Ledger, moved: bool) -> None:
    """What is kept in its place, and what is put around it: there prefix and suffix are part of the caption before its tags are moved, here they never move."""
    mark, between = str(ledger["keep_tokens_separator"] or ""), str(ledger["caption_separator"])
    framed = {key: str(ledger[key] or "") for key in ("caption_prefix", "caption_suffix")}
    if moved:
        _set(ledger, "caption_separator", between, ",", 'tags are joined with it again; there with ", "')
        _kept(ledger, mark, framed["caption_prefix"], between)
    else:
        for key in ("keep_tokens", "keep_tokens_separator", "caption_separator"):
            ledger.imply(key, STILL)
    why = "it stays in its place, where there it is moved and left out with the tag that it is joined to" if moved else ""
    for key, text in framed.items():
        if moved and mark and mark in text:
            _set(ledger, key, _unmarked(text, mark, between, key == "caption_prefix"), "", f'without its "{mark}": it always stays in its place')
        else:
            _set(ledger, key, text, "", why)


def _unmarked(text: str, mark: str, between: str, front: bool) -> str:
    """ "TOK |||" as "TOK,", "||| 4k" as ", 4k"."""
    tags = f"{between.strip()} ".join(tag.strip() for part in text.split(mark) for tag in part.split(between) if tag.strip())
    return f"{tags}{between.strip()}" if front else f"{between.strip()} {tags}"


def _kept(ledger: Ledger, mark: str, prefix: str, between: str) -> None:
    """keep_tokens counts the tags of the prefix, keep_tags those behind it; a mark within the prefix keeps the prefix, which stays here anyway."""
    if mark and mark in prefix:
        ledger.tell("keep_tokens_separator", "data.wording.prefix", "it keeps the prefix in its place; captions that hold it too are not parted there")
        ledger.imply("keep_tokens", "keep_tokens_separator counts before it")
        return
    _set(ledger, "keep_tokens_separator", mark, "")
    said, inside = max(0, ledger["keep_tokens"]), prefix.count(between)
    left = max(0, said - inside)
    if said and not left:
        ledger.tell("keep_tokens", "data.wording.prefix", "so many tags the prefix has, and it always stays in front")
    else:
        _set(ledger, "keep_tokens", left, 0, f"without the {inside} of the prefix" if inside else "")
