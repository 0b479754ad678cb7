"""What is asked of a picture before it is learned from. A new check is one class and one word in `Check`: options, table and contract tests iterate over it."""

from typing import Annotated, get_args

from pydantic import Field

from darkroom.data.checks.content import Faces, Text, Unwanted
from darkroom.data.checks.finding import Finding, Rule
from darkroom.data.checks.quality import Compression, Dpi, Plain, Sharpness
from darkroom.data.checks.shape import Aspect, Side
from darkroom.data.checks.whole import Bomb, Readable, Still

Check = Annotated[
    Readable | Bomb | Still | Side | Aspect | Dpi | Compression | Sharpness | Plain | Text | Faces | Unwanted,
    Field(discriminator="kind"),
]
CHECKS: dict[str, type[Rule]] = {found.model_fields["kind"].default: found for found in get_args(get_args(Check)[0])}

__all__ = ["CHECKS", "Check", "Finding", "Rule"]
