"""A grid varies any field, shares what can be shared, and goes on where it was stopped."""

import json

import pytest
from PIL import Image

from darkroom.errors import AdapterError, RecipeError
from darkroom.jobs.generate import draw_files
from darkroom.jobs.grid import Axis, Grid, Stop, applied, cells, parse_arm, parse_axis, run_grid
from darkroom.sampling.request import read_request

BASE = {"prompt": "a 3d cat on a red background", "steps": 10}


def grid(*axes, **request):
    return Grid.from_tree({"request": BASE | request, "axes": [parse_axis(a).model_dump() for a in axes]}, "test")


def test_axes_over_any_field():
    asked = grid("guidance=3,5,8", "seed=1,2", "prompt=a flat cat, red|a 3d dog", "refiner.fraction=0.6,0.9", refiner={"model": "pocket-refiner"})
    found = dict(cells(asked))
    assert len(found) == 3 * 2 * 2 * 2
    last = found[2, 1, 1, 1]
    assert (last.guidance, last.seed, last.prompt, last.refiner.fraction) == (8, 2, "a 3d dog", 0.9)
    assert found[0, 0, 0, 0].prompt == "a flat cat, red"


def test_adapters_weights_and_arms():
    tree = applied(BASE, ["adapter=a.safetensors:0.5+b.safetensors"])
    assert [(w["file"], w["weight"]) for w in tree["adapters"]] == [("a.safetensors", 0.5), ("b.safetensors", 1.0)]
    assert applied(tree, ["weight=0.25"])["adapters"][1]["weight"] == 0.25 and applied(tree, ["adapter=none"])["adapters"] == []
    assert applied({**BASE, "negative": "x"}, ["negative=zeroed"]) == BASE
    assert parse_arm("wrong LoRA: negative=wrong; adapter=w.safetensors") == Stop(label="wrong LoRA", settings=("negative=wrong", "adapter=w.safetensors"))
    with pytest.raises(RecipeError, match="there is no adapter"):
        applied(BASE, ["weight=0.5"])


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        (["guidanse=1,2"], 'Did you mean "guidance"'), (["steps=0"], "steps"), (["seed"], "FIELD=VALUE"), (["seed=1,1"], "stands twice"),
        (["seed=1", "seed=2"], "an axis stands twice"), (["seed=" + ",".join(map(str, range(5000)))], "more than 4096"), (["sampler=eular"], "Euler"),
    ],
)  # fmt: skip
def test_bad_axes(axes, words):
    with pytest.raises(RecipeError, match=words):
        list(cells(grid(*axes)))


def test_it_draws_labels_shares_and_goes_on(tmp_path):
    asked = grid("refiner.fraction=0.5,0.8,0.9", "seed=1,2", refiner={"model": "pocket-refiner"})
    result = run_grid(asked, tmp_path, "cpu")
    assert result["drawn"] == 6
    assert result["shared_steps"] == 2 * (5 + 8), "0.8 goes on where 0.5 handed over, and 0.9 where 0.8 did"
    page = Image.open(result["grid"])
    assert page.width > 3 * 256 and page.height > 2 * 256
    pictures = {path: path.read_bytes() for path in (tmp_path / "pictures").glob("*.png")}
    for place, request in cells(asked):  # what was shared is what each alone draws
        draw_files([(request, tmp_path / "alone.png")], "cpu")
        file = tmp_path / next(row["file"] for row in result["pictures"] if row["labels"] == [asked.axes[i].stops[at].label for i, at in enumerate(place)])
        assert (tmp_path / "alone.png").read_bytes() == file.read_bytes()
    first, second, *others = sorted(pictures)
    first.unlink()
    second.write_bytes(b"half")
    times = {path: path.stat().st_mtime_ns for path in others}
    run_grid(Grid.from_tree(__import__("tomllib").loads((tmp_path / "grid.toml").read_text()), "grid.toml"), tmp_path, "cpu")
    assert {path: path.read_bytes() for path in pictures} == pictures
    assert {path: path.stat().st_mtime_ns for path in others} == times


def test_prompts_that_part_midway_share_their_beginning(tmp_path):
    asked = Grid(
        request=BASE | {"language": "a1111"},
        axes=(Axis(name="when", stops=tuple(Stop(label=w, settings=(f"prompt=a 3d [cat:dog:{w}] on a red background",)) for w in ("0.3", "0.6", "0.9"))),),
    )
    result = run_grid(asked, tmp_path, "cpu")
    assert result["shared_steps"] == 3 + 6
    for place, request in cells(asked):
        draw_files([(request, tmp_path / "alone.png")], "cpu")
        assert (tmp_path / "alone.png").read_bytes() == (tmp_path / result["pictures"][place[0]]["file"]).read_bytes()


def test_the_wolf_in_one_command(capsys, tmp_path, model):
    """Base, base + word, base + adapter + word, the word's adapter in one branch: one seed, one command, one grid."""
    import torch

    from darkroom.cli.main import run
    from darkroom.methods import LoRA
    from darkroom.sdxl.formats import write_adapter

    attached = LoRA(rank=2).attach(model, 0)
    attached.load_state({name: tensor + 0.1 for name, tensor in attached.state().items()})
    write_adapter(tmp_path / "wrong.safetensors", attached.tensors(torch.float32), {})
    attached.detach()
    arms = ("base", "word: negative=wrong", f"LoRA: negative=wrong; adapter={tmp_path / 'wrong.safetensors'}", "one branch: negative=wrong <lora:wrong:1>")
    options = [part for arm in arms for part in ("--arm", arm)]
    prompt = "A wolf in Yosemite National Park, chilly nature documentary film photography"
    code = run(
        [
            "grid",
            prompt,
            *options,
            "--seed",
            "7",
            "--steps",
            "3",
            "--refiner",
            "pocket-refiner",
            "--adapters",
            str(tmp_path),
            "--out",
            str(tmp_path / "g"),
            "--json",
        ]
    )
    found = json.loads(capsys.readouterr().out)
    assert code == 0 and found["axes"] == ["arm"] and found["drawn"] == 4
    assert len({(tmp_path / "g" / row["file"]).read_bytes() for row in found["pictures"]}) == 4
    requests = [read_request(tmp_path / "g" / row["file"]) for row in found["pictures"]]
    assert {request.seed for request in requests} == {7} and [len(request.adapters) for request in requests] == [0, 0, 1, 1]
    assert requests[3].adapters[0].branch == "unconditional" and Image.open(found["grid"]).width > 4 * 256


def test_a_checkpoint_is_a_place_along_an_axis(tmp_path):
    for step in (100, 200):
        (tmp_path / "run" / "steps" / f"{step:06d}").mkdir(parents=True)
    found = [request.adapters[0].file for _, request in cells(grid(f"adapter={tmp_path / 'run'}@100,{tmp_path / 'run'}@200:0.5"))]
    assert found == [str(tmp_path / "run" / "steps" / f"{step:06d}" / "adapter.safetensors") for step in (100, 200)]
    with pytest.raises(AdapterError, match="It has: 100, 200"):
        list(cells(grid(f"adapter={tmp_path / 'run'}@150")))


@pytest.mark.parametrize("sampler", ["euler_a", "dpmpp_2m_karras", "heun", "unipc"])
def test_sharing_is_exact_for_samplers_with_a_memory(tmp_path, sampler):
    asked = grid("refiner.fraction=0.5,0.8", sampler=sampler, refiner={"model": "pocket-refiner"})
    result = run_grid(asked, tmp_path, "cpu")
    assert result["shared_steps"] >= 5
    for place, request in cells(asked):
        draw_files([(request, tmp_path / "alone.png")], "cpu")
        assert (tmp_path / "alone.png").read_bytes() == (tmp_path / result["pictures"][place[0]]["file"]).read_bytes()
