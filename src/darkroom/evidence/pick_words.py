"""Why this step, and what to beware of: the choice of `pick` in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from darkroom.evidence.measuring import EXCESS, LOSS
from darkroom.statistics.plateau import Change, Curve, Short, Turn
from darkroom.statistics.verdict import decimals

if TYPE_CHECKING:
    from darkroom.evidence.pick import Picked

ALPHA = 0.05
FEW = 3  # held-out pictures below which their loss says little


def told(picked: Picked) -> dict[str, Any]:
    """The sentence, the reasons and the warnings."""
    return {"sentence": sentence(picked), "why": list(reasons(picked)), "warnings": list(warnings(picked)), "rule": rule(picked)}


def rule(picked: Picked) -> str:
    """The rule, as it was applied."""
    pick = picked.pick
    return (
        "The earliest checkpoint is taken that falls short of the best one by no more than "
        f"{_errors(pick.errors)} of the difference (the same prompts, seeds and noise in both), or {pick.margin:.0%} of all that was gained, in likeness and "
        "in held-out loss, among those before held-out loss or copying have risen, or drift has begun to grow faster (broken lines, one for each prompt or "
        "picture, tested). Where none is good in both, the one that loses least of either. Earliest, because what is equal in likeness has by then drifted "
        "least and copied least."
    )


def sentence(picked: Picked) -> str:
    """The choice and its reason, in one sentence."""
    choice, count = picked.choice, len(picked.steps) - 1
    start = f"Step {choice.step} is the one to keep"
    turn = f", {_turn_words(choice.first_turn)}" if choice.first_turn else ""
    if not choice.together:
        parts = " and ".join(f"{short.lost:.0%} of the gain in {short.curve}" for short in choice.shorts)
        return f"{start}: no checkpoint is as good as the best in everything, and of {len(choice.window)} it loses least, {parts}{turn}."
    goals = " and in ".join(short.curve for short in choice.shorts if short.gained)
    if not goals:
        return f"{start}, for want of a better: nothing was gained, in likeness or in held-out loss, at any of {count} checkpoints{turn}."
    return f"{start}: the earliest of {count} checkpoints that is as good as the best in {goals}{turn}."


def _turn_words(turn: Turn) -> str:
    """The guard and where it is seen to turn."""
    return f"before drift grows faster (step {turn.step})" if turn.curve == "drift" else f"before {turn.curve} rises (step {turn.step})"


def reasons(picked: Picked) -> Iterator[str]:
    """The figures behind the choice."""
    choice, curves = picked.choice, _by_name(picked)
    for short in choice.shorts:
        curve = curves[short.curve]
        at, best, base = (float(curve.means[curve.at(step)]) for step in (choice.step, short.best, 0))
        places = decimals(best) + 1
        beside = f"; the best is {best:.{places}f} at step {short.best}, {_allowed(short)}"
        gap = ", the best of those considered" if short.best == choice.step else beside
        yield f"{short.curve}: {at:.{places}f} at step {choice.step} (the base: {base:.{places}f}){gap if short.gained else ', nowhere better than the base'}."
    for turn in choice.turns:
        what = "grows faster" if turn.curve == "drift" else "rises"
        size = _size(turn.curve, turn.change.mean)
        yield f"{turn.curve} {what} from step {turn.since} on, by {size} until the last step (p = {turn.p:.2g}); steps from {turn.step} on were not considered."


def _allowed(short: Short) -> str:
    verb = "within" if short.passes else "more than"
    return f"{_size(short.curve, short.shortfall.mean)} away, {verb} the {_size(short.curve, short.allowed)} that counts as none"


def _size(curve: str, value: float) -> str:
    """A difference in words: losses were compared as ratios."""
    return f"{math.expm1(abs(value)):.1%} of a picture's own" if curve == LOSS else f"{abs(value):.{decimals(value)}f}"


def warnings(picked: Picked) -> Iterator[str]:
    """What a person should know before they take it."""
    choice, last = picked.choice, picked.steps[-1]
    if not choice.together:
        lows = "; ".join(f"{short.curve} is best at step {short.best}" for short in choice.shorts)
        yield f"No checkpoint is good in everything ({lows}). More held-out pictures or prompts would tell better."
    yield from _overfit(picked)
    if choice.step == last and not choice.turns:
        yield "The last checkpoint is chosen and nothing has turned: it may not have learned all that it can. Train longer (train.length) and pick again."
    elif choice.step == picked.steps[1]:
        yield "The first checkpoint is chosen: the best step may lie before it. Save more often (train.save_every), or lower optimizer.rate."
    yield from _patterns(picked)
    if len(picked.held.held_out) < FEW:
        count = len(picked.held.held_out)
        yield f"{count} held-out picture{'s' * (count > 1)}: how far the loss varies from picture to picture is hardly known. Hold out {FEW} or more."
    yield from picked.measured.notes


def _overfit(picked: Picked) -> Iterator[str]:
    """What got significantly worse from the chosen step to the last one."""
    choice, last = picked.choice, picked.steps[-1]
    found = {curve.name: curve.worsening(choice.step, last) for curve in picked.measured.curves} if choice.step != last else {}
    worse = {name: change for name, change in found.items() if change.p < ALPHA / len(found)}
    by_heart = [turn for turn in choice.turns if turn.curve in (LOSS, EXCESS)]
    worse |= {turn.curve: found[turn.curve] for turn in by_heart if turn.curve in found and found[turn.curve].mean > 0}
    if not worse:
        return
    words = _listed([_worse_words(picked, *one) for one in worse.items()])
    if not by_heart and not worse.keys() & {LOSS, EXCESS, "copying"}:
        yield f"From step {choice.step} to {last} {words}."
        return
    seen = f", which can be seen from step {min(turn.step for turn in by_heart)} on" if by_heart else ""
    yield f"Overfitting: from step {choice.step} to {last} {words}. It learns its pictures by heart{seen}; do not take a later one."


def _worse_words(picked: Picked, name: str, change: Change) -> str:
    size = f"{abs(change.mean):.{decimals(change.mean)}f}"
    match name:
        case "held-out loss":
            curve, learned = _by_name(picked)[LOSS], picked.held.learned_losses
            then, now = (float(curve.means[curve.at(step)]) for step in (picked.choice.step, picked.steps[-1]))
            own = [sum(learned[step]) / len(learned[step]) for step in (picked.choice.step, picked.steps[-1])]
            beside = f" while that of pictures it learned from falls from {own[0]:.4f} to {own[1]:.4f}" if own[1] < own[0] else ""
            return f"the loss of held-out pictures rises by {now / then - 1:.0%} (from {then:.4f} to {now:.4f}){beside}"
        case "copying":
            return f"its pictures come nearer to those it learned from (by {size} points)"
        case "copying beyond chance":
            return f"they come nearer to those it learned from than to others of the subject (by {size} points)"
        case "diversity":
            return f"pictures of one prompt become more alike (by {size} points)"
        case "clip":
            return f"it follows prompts less (by {size} points)"
        case "drift":
            return f'pictures of "{picked.words}" without the trigger move further from the base\'s (by {size} points)'
    return f"{name} gets worse by {size}"


def _patterns(picked: Picked) -> Iterator[str]:
    """Known patterns at the chosen step, against the base."""
    choice, curves = picked.choice, _by_name(picked)

    def moved(name: str, better: bool) -> bool:
        if name not in curves:
            return False
        change = curves[name].worsening(*((choice.step, 0) if better else (0, choice.step)))
        return change.p < ALPHA

    if "likeness" in curves and not moved("likeness", True):
        change = curves["likeness"].change(0, choice.step)
        reach = change.reach(picked.pick.confidence)
        around = "" if math.isnan(reach) else f", {change.mean - reach:+.1f} to {change.mean + reach:+.1f}"
        yield f"Likeness is not seen to be above the base's ({change.mean:+.1f}{around}): nothing says yet that the subject was learned."
    if moved("likeness", True) and moved("diversity", False) and moved("clip", False):
        yield (
            "Likeness is up while diversity and the following of prompts are down: the trigger took over. Wear it below 1, or caption what else is to be seen."
        )
    copies = picked.measured.copies.get(choice.step, 0)
    if copies:
        yield f"{copies} of the pictures at step {choice.step} are copies of a picture it learned from, by the copy score."


def _by_name(picked: Picked) -> dict[str, Curve]:
    return {curve.name: curve for curve in picked.measured.curves}


def _errors(count: float) -> str:
    return "one standard error" if count == 1 else f"{count:g} standard errors"


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
