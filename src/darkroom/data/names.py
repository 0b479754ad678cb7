"""File names from what strangers call their pictures: readable, safe on every system, and the same whatever arrives first."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import unquote

LONGEST = 80
"""Bytes of UTF-8 in one part of a path: with a mark and an ending far below every system's 255, so that paths stay below Windows' 260 characters."""
FORBIDDEN = re.compile(r'[<>:"/\\|?*]')
RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])", re.IGNORECASE)
ENDING = re.compile(r"\.[A-Za-z0-9]{1,5}$")


def safe(text: str) -> str:
    """One part of a path that Linux, macOS and Windows all take: NFC, no separators, controls or reserved names, at most `LONGEST` bytes; never empty."""
    kept = "".join("_" if unicodedata.category(mark) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") else mark for mark in unicodedata.normalize("NFC", text))
    name = _shortened(FORBIDDEN.sub("_", kept).strip(" .")).strip(" .")
    if RESERVED.fullmatch(name.partition(".")[0].strip()):
        name = f"_{name}"
    return name or "_"


def _shortened(name: str) -> str:
    return name.encode()[:LONGEST].decode(errors="ignore")


def mark(text: str) -> str:
    """Ten hexadecimal digits that stand for the text."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:10]


def stem_of(reference: str) -> str:
    """A name without its ending for a URL or a path in a table: its last part, and a mark of the whole so that no two share it."""
    path = unquote(re.split(r"[?#]", reference.partition("://")[2])[0].partition("/")[2]) if "://" in reference else reference.replace("\\", "/")
    last = ENDING.sub("", path.rstrip("/").rpartition("/")[2])
    return f"{safe(last)}-{mark(reference)}" if last else mark(reference)


def stems_of(files: Iterable[str]) -> dict[str, str]:
    """Names without their endings for the files of one folder ("/" between parts), as near to their own as can be.

    Files that would share a name on any system (other endings, other case, characters that had to go) each get a mark of their own, whichever comes first.
    """
    plain = {file: "/".join([*(safe(part) for part in PurePosixPath(file).parts[:-1]), safe(PurePosixPath(file).stem)]) for file in files}
    shared = Counter(_alike(stem) for stem in plain.values())
    return {file: stem if shared[_alike(stem)] == 1 else f"{stem}-{mark(file)}" for file, stem in plain.items()}


def _alike(stem: str) -> str:
    return unicodedata.normalize("NFC", stem.casefold())
