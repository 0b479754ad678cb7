"""What is asked of the queue: a darkroom command, or pictures to draw. Frozen, checked before anything is written, and never a shell's."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from darkroom.device import Precision
from darkroom.errors import DarkroomError, RecipeError, did_you_mean
from darkroom.sampling.request import Request
from darkroom.spec import Spec, Tree

COMMANDS = frozenset(
    {
        "adapter", "base", "caption", "collect", "dataset", "demo", "export", "generate", "grid", "import", "pick", "prompt", "rate", "recipes",
        "resume", "runs", "score", "screen", "train", "trial", "tune-weights", "wrong",
    }
)  # fmt: skip
"""First words that may be ordered: all of darkroom's but those that serve."""
GROUPS = frozenset({"adapter", "base", "dataset", "import", "runs"})
"""Those that are followed by a second word."""
TRAININGS = ("train", "resume")
LONGEST = 1 << 20
"""Characters of a command line."""


class OrderError(DarkroomError):
    """An order cannot be taken, or what is asked of it cannot be done."""


class Asked(Spec):
    """What every order says."""

    title: str = ""
    """What a person calls it; cut at 200 characters. "": told from what is asked."""
    page: str = Field("", max_length=40)
    """Where it was asked."""
    device: str = Field("cpu", pattern=r"^(cpu|mps|cuda:\d{1,3})$")
    """Whose queue it waits in: cpu, mps or cuda:N. The job sees no other."""
    grounds: tuple[str, ...] = ()
    """The folders that the job may read and write: a fence around it (`darkroom.fence`). None: it may go wherever its user may."""

    @field_validator("title")
    @classmethod
    def _short(cls, title: str) -> str:
        return " ".join(title.split())[:200]


class Command(Asked):
    """A darkroom command, as a list of words."""

    kind: Literal["command"] = "command"
    argv: tuple[str, ...] = Field(min_length=1, max_length=10_000)
    """The words after `darkroom`, without --json. Relative paths are below the workspace."""

    @field_validator("argv")
    @classmethod
    def _known(cls, argv: tuple[str, ...]) -> tuple[str, ...]:
        if argv and argv[0] not in COMMANDS:
            raise ValueError(f'"{argv[0]}" is no command that can be ordered.{did_you_mean(argv[0], COMMANDS)} Known: {", ".join(sorted(COMMANDS))}')
        if any("\0" in word for word in argv) or sum(map(len, argv)) > LONGEST:
            raise ValueError(f"a command has at most {LONGEST} characters, and none of them is NUL")
        return argv

    @property
    def words(self) -> tuple[str, ...]:
        """As it is run: with --json right after its name, where no "--" can hide it."""
        name = 2 if self.argv[0] in GROUPS else 1
        rest = tuple(word for word in self.argv[name:] if word != "--json")
        return (*self.argv[:name], "--json", *rest)

    @property
    def name(self) -> str:
        """The command's first word."""
        return self.argv[0]

    @property
    def told(self) -> str:
        """The title, or the command."""
        return self.title or " ".join(self.argv)[:200]

    @property
    def run(self) -> str:
        """The run folder of a training, as it was named; "" of any other command."""
        match self.argv[0]:
            case "train":
                return option(self.argv, "--out")
            case "resume":
                plain = [word for at, word in enumerate(self.argv[1:]) if not word.startswith("-") and self.argv[at] != "--processes"]
                return plain[0] if plain else ""
        return ""


class Draw(Asked):
    """Pictures, drawn by a process that keeps its models open: the same bytes as `darkroom generate` draws."""

    kind: Literal["draw"] = "draw"
    requests: tuple[Request, ...] = Field(min_length=1, max_length=256)
    """One a picture."""
    out: str = "pictures"
    """The folder, below the workspace if relative."""
    precision: Precision = "auto"
    memory: Literal["full", "model", "sequential"] = "full"
    adapters: str | None = None
    """Where <lora:NAME:WEIGHT> finds its file. None: $DARKROOM_ADAPTERS, else ./adapters."""
    fill: bool = True
    """As many at once as are surely cheap in memory, as `--batch 0` does; else what each request says."""
    previews: int = Field(0, ge=0)
    """Show what a picture looks like every so many steps; 0: never."""

    @property
    def name(self) -> str:
        """What stands for a command's first word."""
        return "draw"

    @property
    def told(self) -> str:
        """The title, or the first prompt."""
        return self.title or " ".join(self.requests[0].prompt.split())[:200] or "a picture"

    @property
    def run(self) -> str:
        """None."""
        return ""


Order = Command | Draw


def read_order(tree: Tree, source: str) -> Order:
    """An order from nested dictionaries. Raises RecipeError."""
    match tree.get("kind", "command"):
        case "command":
            return Command.from_tree(tree, source)
        case "draw":
            return Draw.from_tree(tree, source)
        case other:
            raise RecipeError(f'{source}: kind = "{other}": there is no such kind. Known: command, draw.')


def option(argv: tuple[str, ...], name: str) -> str:
    """The last value of an option, "" where it is not given."""
    found = ""
    for at, word in enumerate(argv):
        if word == name and at + 1 < len(argv):
            found = argv[at + 1]
        elif word.startswith(f"{name}="):
            found = word.partition("=")[2]
    return found


def placed(order: Order, number: int) -> Order:
    """A training with a run folder of its own, so that it can be paused, found and gone on with; any other order as it is."""
    if not isinstance(order, Command) or order.name != "train" or order.run:
        return order
    recipe = next((word for word in order.argv[1:] if not word.startswith("-")), "run")
    place = f"runs/{Path(recipe).stem}-{number:06d}"
    return order.model_copy(update={"argv": ("train", "--out", place, *order.argv[1:])})
