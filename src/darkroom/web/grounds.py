"""Which files a page may name: those below the workspace, and below folders that were given besides it. Nothing else can be read or written.

A name is relative to the workspace, with "/" between its parts: "datasets/cats/001.jpg". A folder given besides it is called by its own name after an
"@": "@photos/cats". What a name leads to is looked at with every link followed, so that a link inside cannot lead outside.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from darkroom.errors import DarkroomError

LONGEST = 1024
"""Characters of a name."""
DRIVE = re.compile(r"^[A-Za-z]:")
SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
RESERVED = {"con", "prn", "aux", "nul", *(f"{name}{number}" for name in ("com", "lpt") for number in range(1, 10))}
"""What Windows takes for devices, whatever ending follows."""
OWN = ".darkroom"
"""Where the studio keeps its own things in the workspace: no page names what is in it."""


class Refused(DarkroomError):
    """A request that is not answered: what it named, and the rule."""


@dataclass(frozen=True)
class Grounds:
    """The folders that pages work in."""

    workspace: Path
    others: dict[str, Path] = field(default_factory=dict)
    """By name."""

    @classmethod
    def of(cls, workspace: Path, folders: list[Path]) -> Grounds:
        """Raises Refused for a folder that is not there, or two of the same name."""
        others: dict[str, Path] = {}
        for folder in folders:
            place = folder.resolve()
            if not place.is_dir():
                raise Refused(f"--folder {folder}: there is no such folder.")
            if place.name in others:
                raise Refused(f'--folder {folder}: another folder is called "{place.name}" already. Give a folder above both.')
            others[place.name] = place
        return cls(workspace.resolve(), others)

    @property
    def roots(self) -> tuple[Path, ...]:
        """All of them, the workspace first."""
        return self.workspace, *self.others.values()

    def path(self, name: str) -> Path:
        """The file or folder that a name means; it need not be there. Raises Refused."""
        parts = _parts(name)
        root = self.workspace
        if parts and parts[0].startswith("@") and parts[0][1:] in self.others:
            root, parts = self.others[parts[0][1:]], parts[1:]
        if OWN in (part.lower() for part in parts):
            raise Refused(f"{_shown(name)}: belongs to the studio itself.")
        found = root.joinpath(*parts)
        real = found.resolve()
        if real != root and not real.is_relative_to(root):
            raise Refused(f"{_shown(name)}: leads outside of {root} by a link.")
        if OWN in real.relative_to(root).parts:
            raise Refused(f"{_shown(name)}: belongs to the studio itself.")
        return real

    def there(self, name: str) -> Path:
        """The same, and it must be there. Raises Refused."""
        found = self.path(name)
        if not found.exists():
            raise Refused(f"{_shown(name)}: there is no such file or folder.")
        return found

    def name(self, path: Path) -> str:
        """What pages call a path, "" for the workspace itself. Raises Refused for one outside."""
        real = path.resolve()
        for prefix, root in (("", self.workspace), *((f"@{name}", root) for name, root in self.others.items())):
            if real == root or real.is_relative_to(root):
                return "/".join([*([prefix] if prefix else []), *real.relative_to(root).parts])
        raise Refused(f"{path}: lies outside of the studio's folders.")

    def holds(self, path: Path) -> bool:
        """Whether pages may name it."""
        try:
            self.name(path)
        except Refused:
            return False
        return True


def _parts(name: str) -> list[str]:
    """The parts of a name that is harmless on every system. Raises Refused."""
    wrong = (
        "is too long" if len(name) > LONGEST else
        "holds characters that no name has" if any(ord(letter) < 32 or ord(letter) == 127 or 0xD800 <= ord(letter) < 0xE000 for letter in name) else
        "is an address, not a name in the workspace" if SCHEME.match(name) else
        'holds a "\\": write "/"' if "\\" in name else
        "names a drive" if DRIVE.match(name) else
        "is an absolute path: names are relative to the workspace" if name.startswith("/") else
        "begins with ~: names are relative to the workspace" if name.startswith("~") else
        ""
    )  # fmt: skip
    parts = [part for part in name.split("/") if part not in ("", ".")]
    for part in parts:
        if part == ".." or (part.endswith((" ", ".")) and part.strip(". ") == ""):
            wrong = wrong or "leads upwards"
        elif ":" in part:
            wrong = wrong or 'holds a ":", which names a stream or a drive'
        elif part.partition(".")[0].strip().lower() in RESERVED:
            wrong = wrong or f'"{part}" is a device on Windows'
        elif len(part.encode(errors="replace")) > 255:
            wrong = wrong or "is too long"
    if wrong:
        raise Refused(f"{_shown(name)}: {wrong}.")
    return parts


def _shown(name: str) -> str:
    """A name for a message: short, and with nothing that a terminal or a page could take for more."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in name[:80])
    return plain + ("..." if len(name) > 80 else "")
