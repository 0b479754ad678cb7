"""Our one loop draws what stock diffusers draws, and our files do there what they do here."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

from darkroom import pocket
from darkroom.methods import LoRA
from darkroom.methods.stack import Wear, worn
from darkroom.sampling.draw import Kit, complete, draw, draw_latents
from darkroom.sampling.request import Request
from darkroom.sampling.start import noise
from darkroom.sdxl.formats import read_adapter, write_adapter


@pytest.fixture(scope="module")
def pipe():
    pipe = StableDiffusionXLPipeline.from_pretrained(pocket.folder())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def theirs(pipe, request, output="latent"):
    with torch.no_grad():
        return pipe(
            request.prompt, negative_prompt=request.negative, num_inference_steps=request.steps, guidance_scale=request.guidance,
            latents=noise(request.seed, request.width, request.height, 4), width=request.width, height=request.height, output_type=output,
        ).images  # fmt: skip


REQUESTS = {
    "zeroed negative": Request(prompt="a 3d cat on a red background", seed=5, steps=6),
    "empty negative": Request(prompt="a 3d cat on a red background", negative="", seed=5, steps=6),
    "negative": Request(prompt="a flat robot", negative="blurry", seed=6, steps=6, guidance=8.0),
    "no guidance": Request(prompt="a flat robot", seed=6, steps=6, guidance=1.0),
    "wide": Request(prompt="a flat robot", seed=7, steps=4, width=96, height=48),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS.keys())
def test_latents_equal_the_stock_pipeline(model, pipe, request_):
    request = complete(model, request_)
    assert torch.equal(draw_latents(Kit(model), request), theirs(pipe, request))


def test_ddim_equals_the_stock_pipeline(model, pipe):
    request = complete(model, Request(prompt="a flat robot", seed=6, steps=6, sampler="ddim"))
    kept = pipe.scheduler
    pipe.scheduler = DDIMScheduler.from_config(kept.config, clip_sample=False, set_alpha_to_one=False)
    try:
        assert torch.equal(draw_latents(Kit(model), request), theirs(pipe, request))
    finally:
        pipe.scheduler = kept


@pytest.mark.parametrize(
    "method", [LoRA(rank=4), LoRA(rank=2, alpha=1.0, feed_forward=True, convolution=True, text_encoders=True)], ids=["attention", "everything"]
)
def test_stock_diffusers_loads_our_adapter(model, pipe, tmp_path, method):
    """`load_lora_weights` on the pocket folder draws what `darkroom generate` draws: at most 2 of 255 apart in any pixel."""
    attached = method.attach(model, seed=1)
    attached.load_state(
        {
            name: tensor + 0.05 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(i))
            for i, (name, tensor) in enumerate(attached.state().items())
        }
    )
    write_adapter(tmp_path / "a.safetensors", attached.tensors(torch.float32), attached.metadata())
    attached.detach()
    request = complete(model, Request(prompt="a photo of TOK cat", seed=5, steps=6))
    plain = np.asarray(draw(Kit(model), request), int)
    with worn(model, [Wear(read_adapter(tmp_path / "a.safetensors", model))]):
        ours = np.asarray(draw(Kit(model), request), int)
    pipe.load_lora_weights(tmp_path / "a.safetensors")
    try:
        stock = np.asarray(theirs(pipe, request, "pil")[0], int)
    finally:
        pipe.unload_lora_weights()
    assert np.abs(ours - plain).max() > 20, "the adapter does nothing: the test would prove nothing"
    assert np.abs(ours - stock).max() <= 2


def test_we_read_what_diffusers_and_peft_write(model, pipe, tmp_path):
    """diffusers' own layout (save_lora_weights) names the same change."""
    from diffusers.utils import convert_state_dict_to_diffusers

    method = LoRA(rank=4, alpha=4.0, text_encoders=True)
    attached = method.attach(model, seed=1)
    attached.load_state(
        {
            name: tensor + 0.05 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(i))
            for i, (name, tensor) in enumerate(attached.state().items())
        }
    )
    write_adapter(tmp_path / "kohya.safetensors", attached.tensors(torch.float32), {})
    from peft import get_peft_model_state_dict

    states = {part: convert_state_dict_to_diffusers(get_peft_model_state_dict(root, adapter_name="learned")) for part, root in model.parts.items()}
    attached.detach()
    StableDiffusionXLPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=states["unet"], text_encoder_lora_layers=states["text_encoder"], text_encoder_2_lora_layers=states["text_encoder_2"]
    )
    ours = read_adapter(tmp_path / "kohya.safetensors", model).changes
    stock = read_adapter(tmp_path / "pytorch_lora_weights.safetensors", model).changes
    assert ours.keys() == stock.keys()
    assert all(torch.equal(ours[place].up, stock[place].up) and torch.equal(ours[place].down, stock[place].down) for place in ours)


def test_the_refiner_loads_in_the_stock_pipeline(pipe):
    refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(pocket.folder("refiner"))
    refiner.set_progress_bar_config(disable=True)
    assert refiner.text_encoder is None and refiner.config.requires_aesthetics_score
    picture = theirs(pipe, complete_size(REQUESTS["negative"]), "pil")[0]
    out = refiner("a flat robot", image=picture, strength=0.3, num_inference_steps=10, generator=torch.Generator().manual_seed(0)).images[0]
    assert out.size == (64, 64) and np.asarray(out).std() > 1


def complete_size(request):
    return request.model_copy(update={"width": 64, "height": 64})


def test_a_refiner_is_told_from_a_base():
    from darkroom.jobs.base import open_base

    found = open_base("pocket-refiner", "cpu", "fp32")
    assert found.text_encoder is None and found.unet.config.cross_attention_dim == 96
