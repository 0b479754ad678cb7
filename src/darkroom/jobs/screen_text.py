"""A screening in words: the table of reasons, what to do next, and the list of checks."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from darkroom.data.screening import limits
from darkroom.jobs.screen import Screened


def lines(screened: Screened) -> list[str]:
    """The summary in words and a table."""
    facts, folder = screened.facts, screened.manifest.folder
    remembered = facts["pictures"] - screened.read
    told = [f"{facts['kept']:,} of {facts['pictures']:,} pictures kept, {facts['rejected']:,} rejected ({screened.read:,} read, {remembered:,} remembered)"]
    if any(facts["overruled"].values()):
        told.append(f"by your own word {facts['overruled']['keep']:,} kept and {facts['overruled']['reject']:,} rejected")
    names = [*dict.fromkeys([*facts["reasons"], *facts["unknown"], *facts["notes"]])]
    if names:
        told += ["", f"{'reason':<12} {'rejected':>9} {'alone':>9} {'unknown':>9} {'noted':>9}"]
        told += [f"{name:<12} " + " ".join(f"{facts[key].get(name, 0) or '-':>9}" for key in ("reasons", "alone", "unknown", "notes")) for name in names]
    told += ["", *_hints(facts, folder)]
    return [line for number, line in enumerate(told) if line or number < len(told) - 1]


def _hints(facts: dict[str, Any], folder: Path) -> Iterable[str]:
    """What a person might want to know next."""
    for kind, count in facts["alone"].items():
        if 2 < count > facts["pictures"] / 3:
            yield f"{kind} alone rejects {count:,} of {facts['pictures']:,}. If you do not want that: --without {kind}, or another limit (--checks lists them)."
    if facts["crowd"]:
        file, count = facts["crowd"]
        yield f"{file} stands there {count} times. If it is a placeholder, reject it too: --like {folder / file}"
    if facts["rejected"]:
        yield f"see them: darkroom screen {folder} --show    overrule: --keep FILE, --reject FILE, --undo FILE"


def checks_table() -> list[str]:
    """Every check with its limits, in words."""
    told = []
    for one in limits():
        told.append(f"{one['check']}: {one['asks']}{'' if one['wanted'] else ' Made with --with ' + one['check'] + '.'}")
        for limit in one["limits"]:
            head = f"  {one['check']}.{limit['name']}={limit['default']}"
            told += [head, *textwrap.wrap(limit["about"], 110, initial_indent="      ", subsequent_indent="      ")]
    return told
