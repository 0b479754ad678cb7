"""NAME.txt beside pictures, for programs that read no manifest. What a person wrote is never written over."""

from __future__ import annotations

from pathlib import Path

from darkroom.data.captions import one_line
from darkroom.data.manifest import ORIGINAL, Manifest, Row
from darkroom.files import write_text


class Sidecars:
    """Lays captions of one name beside their pictures, and counts what was laid and what was left as it is."""

    def __init__(self, manifest: Manifest, name: str, wanted: bool) -> None:
        self.manifest, self.name, self.wanted = manifest, name, wanted
        self.written: list[str] = []
        self.same = 0
        self.kept: list[str] = []

    def counts(self) -> dict[str, object]:
        """Files that were written, how many said it already, and files that say something else and were kept."""
        return {"written": len(self.written), "same": self.same, "kept": self.kept}

    def lay(self, before: Row, after: Row) -> None:
        """Write the caption beside the picture, where that is wanted, and where an older caption of this name lies there, which would now be stale.

        A picture whose own caption is read from a file and says something else is left alone: two files that disagree would be an error.
        """
        text, old = after.captions.get(self.name, ""), before.captions.get(self.name, "")
        path = self.manifest.path(after).with_suffix(".txt")
        if not text or (not self.wanted and (old in ("", text) or before.beside == path.name)):
            return
        there = _text(path)
        if not self.wanted and there != old:
            return
        if there == text:
            self.same += 1
        elif self._is_taken(before, there, old, path):
            self.kept.append(path.relative_to(self.manifest.folder).as_posix())
        else:
            write_text(path, text + "\n")
            self.written.append(path.relative_to(self.manifest.folder).as_posix())

    @staticmethod
    def _is_taken(row: Row, there: str | None, old: str, path: Path) -> bool:
        ours = bool(old) and there == old and row.beside != path.name
        read_elsewhere = row.beside and not row.beside.endswith("/") and row.captions.get(ORIGINAL)
        return bool((there is not None and not ours) or (there is None and read_elsewhere))


def _text(path: Path) -> str | None:
    """What the file says, or None where there is none."""
    return one_line(path.read_text(encoding="utf-8-sig", errors="replace")) if path.is_file() else None
