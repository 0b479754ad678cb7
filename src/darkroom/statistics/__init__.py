"""Is the difference real, how large is it, and how many pictures would it take to see one? No torch.

`Pairs` holds what one arm gained over another with the same prompts, seeds and noise; `judge` says in a sentence what may be concluded from it. The parts:
`paired` and `bootstrap` (intervals), `sign_flip` and `wilcoxon` (chance), `effect_size`, `holm`, `equivalence`, `components` and `plan`; and for what pictures
scored, `describe` and `Table`. Prompts are the unit everywhere: many seeds of one prompt do not pass for many independent pictures.
"""

from darkroom.statistics.chance import SignFlip, holm, sign_flip, wilcoxon
from darkroom.statistics.effect import Effect, effect_size
from darkroom.statistics.equivalent import Equivalence, equivalence
from darkroom.statistics.interval import Difference, Interval, Verdict, bootstrap, paired, student
from darkroom.statistics.pairs import ComparisonError, Pairs
from darkroom.statistics.plan import Alternative, Plan, plan, power, smallest_visible
from darkroom.statistics.summary import Summary, describe
from darkroom.statistics.tables import Table, picture_table, summary_table
from darkroom.statistics.variance import Components, components, seed_effect
from darkroom.statistics.verdict import Case, Judgement, Measure, judge

__all__ = [
    "Alternative",
    "Case",
    "ComparisonError",
    "Components",
    "Difference",
    "Effect",
    "Equivalence",
    "Interval",
    "Judgement",
    "Measure",
    "Pairs",
    "Plan",
    "SignFlip",
    "Summary",
    "Table",
    "Verdict",
    "bootstrap",
    "components",
    "describe",
    "effect_size",
    "equivalence",
    "holm",
    "judge",
    "paired",
    "picture_table",
    "plan",
    "power",
    "seed_effect",
    "sign_flip",
    "smallest_visible",
    "student",
    "summary_table",
    "wilcoxon",
]
