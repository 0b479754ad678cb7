"""Only a darkroom command can be ordered, as a list of words that no shell ever sees."""

from __future__ import annotations

import pytest
import typer

from darkroom.cli.main import app
from darkroom.errors import RecipeError
from darkroom.jobs.queue import COMMANDS, Command, Draw, read_order
from darkroom.jobs.queue.order import GROUPS, placed

SERVE = {"studio"}
"""What serves is not ordered: it would never end."""


def leaves() -> dict[tuple[str, ...], list[str]]:
    """Every command with its options."""
    found = {}

    def walk(command, name: tuple[str, ...]) -> None:
        if hasattr(command, "commands"):
            for word, inner in command.commands.items():
                walk(inner, (*name, word))
        if not hasattr(command, "commands") or command.invoke_without_command:
            found[name] = [option for parameter in command.params for option in parameter.opts]

    walk(typer.main.get_command(app), ())
    return found


def test_the_list_is_that_of_the_command_line() -> None:
    known = {name[0] for name in leaves() if name}
    assert known - SERVE == COMMANDS
    assert {name[0] for name in leaves() if len(name) > 1} == GROUPS


def test_every_command_that_can_be_ordered_tells_its_result_as_json() -> None:
    silent = [name for name, options in leaves().items() if name and name[0] not in SERVE and "--json" not in options]
    assert [name for name in silent if len(name) > 1 or name[0] not in GROUPS] == []


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("recipes", "demo"), ("recipes", "--json", "demo")),
        (("dataset", "show", "cats"), ("dataset", "show", "--json", "cats")),
        (("generate", "--", "--json is a prompt"), ("generate", "--json", "--", "--json is a prompt")),  # it could not be hidden behind "--"
        (("recipes", "--json"), ("recipes", "--json")),
    ],
)
def test_json_stands_where_it_is_read(argv: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert Command(argv=argv).words == words


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"argv": ["rm", "-rf", "/"]}, '"rm" is no command that can be ordered'),
        ({"argv": ["studio"]}, '"studio" is no command that can be ordered'),
        ({"argv": ["--version"]}, "no command that can be ordered"),
        ({"argv": ["screeen", "cats"]}, 'Did you mean "screen"?'),
        ({"argv": []}, "argv"),
        ({"argv": "train demo; rm -rf /"}, "argv"),  # a line is not a list
        ({"argv": ["train", "a\0b"]}, "none of them is NUL"),
        ({"argv": ["train", "x" * (1 << 20)]}, "at most"),
        ({"argv": ["recipes"], "env": {"LD_PRELOAD": "x"}}, 'no key "env"'),
        ({"argv": ["recipes"], "device": "cuda:0; reboot"}, "device"),
        ({"kind": "pickle", "argv": ["recipes"]}, "Known: command, draw"),
        ({"kind": "draw", "requests": []}, "requests"),
        ({"kind": "draw", "requests": [{"prompt": "a cat", "steps": 0}]}, "steps = 0"),
        ({"kind": "draw", "requests": [{"prompt": "a cat", "stepz": 4}]}, "stepz"),
    ],
)
def test_what_is_no_order_is_refused_with_its_rule(tree: dict, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_order(tree, "page")
    assert words in str(caught.value)


def test_a_training_has_a_run_folder() -> None:
    order = placed(Command(argv=("train", "my/hat.toml", "--images", "x")), 7)
    assert order.run == "runs/hat-000007" and order.argv[-2:] == ("--images", "x")
    assert placed(Command(argv=("train", "demo", "--out=here")), 8).run == "here"
    assert Command(argv=("resume", "--processes", "2", "runs/x")).run == "runs/x"
    assert Command(argv=("collect", "a", "--to", "b")).run == ""


def test_an_order_reads_back_what_it_wrote() -> None:
    for order in (Command(argv=("recipes",), title="  two\n lines "), Draw(requests=({"prompt": "a cat"},), previews=2)):
        assert read_order(order.model_dump(mode="json"), "order.json") == order
    assert Command(argv=("recipes",), title="  two\n lines ").told == "two lines"
    assert len(Command(argv=("recipes",), title="x" * 9000).told) == 200
