"""A picture carries what it was asked to be, and depends on nothing else."""

import pytest
from PIL import Image

from darkroom.errors import AdapterError
from darkroom.jobs.generate import draw_files, parse_adapter, requests_for
from darkroom.sampling.request import Request, Worn, png_bytes, read_request


def test_a_png_carries_its_request(tmp_path):
    asked = Request(prompt='ein "Kätzchen" 猫\nzwei', negative="", seed=2**62, adapters=(Worn(file="a/b.safetensors", weight=-0.5, sha256="ff"),))
    (tmp_path / "a.png").write_bytes(png_bytes(Image.new("RGB", (8, 8)), asked))
    assert read_request(tmp_path / "a.png") == asked


def test_the_a1111_text_is_what_sites_parse():
    asked = Request(
        prompt="a cat",
        negative="blurry",
        seed=7,
        steps=30,
        guidance=7.5,
        width=1024,
        height=768,
        base_sha256="0123456789abcdef",
        adapters=(Worn(file="x/thor.safetensors", weight=0.8),),
    )
    lines = asked.a1111().split("\n")
    assert lines[0] == "a cat <lora:thor:0.8>"
    assert lines[1] == "Negative prompt: blurry"
    assert lines[2].startswith("Steps: 30, Sampler: Euler, CFG scale: 7.5, Seed: 7, Size: 1024x768, Model hash: 0123456789, Model: pocket")


@pytest.mark.parametrize(
    ("text", "file", "weight"),
    [("a.safetensors", "a.safetensors", 1), ("a.safetensors:0.5", "a.safetensors", 0.5), ("a:-1", "a", -1), (r"C:\x\a.safetensors", r"C:\x\a.safetensors", 1)],
)
def test_adapters_with_weights(text, file, weight):
    assert parse_adapter(text) == Worn(file=file, weight=weight)


def test_a_weight_that_is_none():
    with pytest.raises(AdapterError, match="is no weight"):
        parse_adapter("a.safetensors:strong")


def test_a_picture_does_not_depend_on_its_neighbours(tmp_path):
    template = Request(prompt="", steps=2)
    many = requests_for(["a 3d cat", "a flat dog"], template, 2)
    assert [(r.prompt, r.seed) for r in many] == [("a 3d cat", 0), ("a 3d cat", 1), ("a flat dog", 0), ("a flat dog", 1)]
    draw_files([(r, tmp_path / f"{i}.png") for i, r in enumerate(many)], "cpu")
    draw_files([(many[3], tmp_path / "alone.png")], "cpu")
    assert (tmp_path / "alone.png").read_bytes() == (tmp_path / "3.png").read_bytes()
    assert len({(tmp_path / f"{i}.png").read_bytes() for i in range(4)}) == 4
