"""Stock diffusers reads what we write, base and refiner, file and folder: every weight bit by bit."""

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

from darkroom import pocket
from darkroom.sdxl.blend import Blend, blend
from darkroom.sdxl.checkpoint import write_single_file
from darkroom.sdxl.configs import build
from darkroom.sdxl.folder import write_folder
from darkroom.sdxl.model import load

PIPELINES = {"": StableDiffusionXLPipeline, "refiner": StableDiffusionXLImg2ImgPipeline}
CPU = torch.device("cpu")


def same(model, pipe, dtype=torch.float32):
    for part, module in {**model.parts, "vae": model.vae}.items():
        mine, theirs = module.state_dict(), getattr(pipe, part).state_dict()
        assert mine.keys() == theirs.keys(), part
        assert [name for name in mine if not torch.equal(mine[name].to(dtype), theirs[name])] == [], part
    assert model.text_encoder is not None or getattr(pipe, "text_encoder", None) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("part", PIPELINES)
def test_stock_diffusers_reads_our_single_file(tmp_path, part, dtype):
    model, path = load(pocket.folder(part), CPU, torch.float32), tmp_path / "pocket.safetensors"
    write_single_file(model, path, dtype)
    pipe = PIPELINES[part].from_single_file(str(path), config=str(pocket.folder(part)), torch_dtype=dtype)
    same(model, pipe, dtype)


@pytest.mark.parametrize("kind", ["base", "refiner"])
def test_stock_diffusers_reads_a_file_of_the_true_depth(tmp_path, kind):
    """All the keys of SDXL 1.0 and of its refiner, narrow: what the pocket's shallow U-Net does not have is here."""
    model = build(kind, 32)
    write_folder(model, tmp_path / "config", torch.float16)
    write_single_file(model, tmp_path / "a.safetensors", torch.float32)
    pipeline = PIPELINES["" if kind == "base" else kind]
    same(model, pipeline.from_single_file(str(tmp_path / "a.safetensors"), config=str(tmp_path / "config"), torch_dtype=torch.float32))


@pytest.mark.parametrize("part", PIPELINES)
def test_stock_diffusers_loads_our_folder(tmp_path, part):
    model = load(pocket.folder(part), CPU, torch.float32)
    write_folder(model, tmp_path / "out", torch.float16)
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "out", torch_dtype=torch.float16)
    assert type(pipe) is PIPELINES[part]
    same(model, pipe, torch.float16)
    assert pipe.config.force_zeros_for_empty_prompt == model.zeroes_empty
    assert pipe.config.get("requires_aesthetics_score", False) == (part == "refiner")
    assert pipe.tokenizer_2("a photo of a cat").input_ids == model.tokenizer_2("a photo of a cat").input_ids
    assert pipe.scheduler.config.beta_end == 0.012


def test_stock_diffusers_reads_a_blend(tmp_path):
    model, path = load(pocket.folder(), CPU, torch.float32), tmp_path / "blend.safetensors"
    blend(path, [pocket.folder(), pocket.folder()], Blend(weight=0.3), torch.float32)
    same(model, StableDiffusionXLPipeline.from_single_file(str(path), config=str(pocket.folder()), torch_dtype=torch.float32))
