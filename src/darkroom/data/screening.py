"""A screening: which checks are made with which limits, and what they say of one look. It is kept in the manifest, so that the next one goes on from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from pydantic import Field

from darkroom.data.checks import CHECKS, Check
from darkroom.data.look import Look
from darkroom.errors import RecipeError, did_you_mean
from darkroom.spec import Spec, Tree, override

DUPLICATE = "duplicate"


class Duplicates(Spec):
    """Of pictures that are the same one again the best is kept."""

    same: float = Field(1.0, gt=0, le=3, description="How alike pictures must be: above 1 more pass for the same, below 1 fewer; 0.05 leaves true copies.")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What all checks said of one picture, by the check's name."""

    reasons: tuple[tuple[str, str], ...]
    unknown: tuple[str, ...]
    notes: tuple[str, ...]
    figures: dict[str, float]


class Screening(Spec):
    """The checks to make, each at most once, and whether duplicates are looked for."""

    checks: tuple[Check, ...] = Field(
        cast(tuple[Check, ...], tuple(rule() for rule in CHECKS.values() if rule.wanted)), description="The checks, with their limits."
    )
    duplicates: Duplicates | None = Field(Duplicates(), description="None: they are not looked for.")

    @property
    def measures(self) -> tuple[str, ...]:
        """What must be measured beside a look."""
        return tuple(sorted({check.measure for check in self.checks if check.measure}))

    def judge(self, look: Look) -> Judgement:
        """All checks on one look."""
        reasons: list[tuple[str, str]] = []
        words: dict[str, list[str]] = {"unknown": [], "note": []}
        figures: dict[str, float] = {}
        for check in self.checks:
            if check.needs_picture and look.fault:
                continue
            figures |= check.figures(look)
            found = check.judge(look)
            if found is not None and found.word == "reject":
                reasons.append((check.kind, found.reason))
            elif found is not None:
                words[found.word].append(check.kind)
        return Judgement(tuple(reasons), tuple(words["unknown"]), tuple(words["note"]), figures)

    def tree(self) -> Tree:
        """{"side": {"smallest": 512, ...}, ...}: a check that is there is made."""
        found: Tree = {check.kind: check.model_dump(mode="json", exclude={"kind"}) for check in self.checks}
        return found | ({DUPLICATE: self.duplicates.model_dump(mode="json")} if self.duplicates else {})

    @classmethod
    def of(cls, tree: Tree) -> Screening:
        """The screening of such a tree. Raises RecipeError for an unknown check or limit, and for a value that the limit cannot have."""
        for kind in tree:
            _known(kind, "--set")
        checks = cast(tuple[Check, ...], tuple(rule.from_tree(tree[kind], f"--set {kind}") for kind, rule in CHECKS.items() if kind in tree))
        duplicates = Duplicates.from_tree(tree[DUPLICATE], f"--set {DUPLICATE}") if DUPLICATE in tree else None
        return cls(checks=checks, duplicates=duplicates)

    def but(self, settings: Iterable[str] = (), also: Iterable[str] = (), without: Iterable[str] = ()) -> Screening:
        """The same with limits set ("side.smallest=256"), more checks, or fewer. Raises RecipeError."""
        tree = self.tree()
        for kind in also:
            tree.setdefault(_known(kind, "--with"), {})
        changed: dict[str, Any] = override(tree, settings)
        for kind, limits in changed.items():
            if _known(kind, "--set") and not isinstance(limits, dict):
                raise RecipeError(f"--set {kind}={limits}: name one of its limits, as in --set side.smallest=256. `darkroom screen --checks` lists them.")
        for kind in without:
            changed.pop(_known(kind, "--without"), None)
        return Screening.of(changed)


def _known(kind: str, option: str) -> str:
    known = (*CHECKS, DUPLICATE)
    if kind not in known:
        raise RecipeError(f"{option} {kind}: there is no such check.{did_you_mean(kind, known)} Known: {', '.join(known)}.")
    return kind


def limits() -> list[dict[str, Any]]:
    """Every check with its limits: name, what it asks, whether it is made without being asked for, and (limit, default, description) each."""
    rules: dict[str, Any] = CHECKS | {DUPLICATE: Duplicates}
    return [
        {
            "check": kind,
            "asks": (rule.__doc__ or "").splitlines()[0],
            "wanted": getattr(rule, "wanted", True),
            "limits": [{"name": name, "default": info.default, "about": info.description} for name, info in rule.model_fields.items() if name != "kind"],
        }
        for kind, rule in rules.items()
    ]
