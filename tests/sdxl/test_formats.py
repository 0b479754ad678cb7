"""Names: full coverage of the real SDXL, in the spelling that the field reads."""

import re

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from darkroom.methods.lora import LoRA
from darkroom.sdxl.adapters.places import Catalogue
from darkroom.sdxl.configs import UNETS
from darkroom.sdxl.formats import kohya_name, plain_blocks, sgm_path, text_path

SDXL_UNET = {
    "sample_size": 128, "block_out_channels": (320, 640, 1280), "layers_per_block": 2, "cross_attention_dim": 2048, "use_linear_projection": True,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), "transformer_layers_per_block": (1, 2, 10),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": (5, 10, 20),
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip


@pytest.fixture(scope="module")
def real():
    """SDXL 1.0's parts at their true shapes, on the meta device: names and shapes, no memory."""
    one = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768)
    two = CLIPTextConfig(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280)
    with torch.device("meta"):
        return {"unet": UNet2DConditionModel(**SDXL_UNET), "text_encoder": CLIPTextModel(one), "text_encoder_2": CLIPTextModelWithProjection(two)}


def named(parts, spec):
    return {
        (part, path): kohya_name(part, path, 2)
        for part, root in parts.items()
        for path, module in root.named_modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) and spec.wanted(f"{part}.{path}")
    }


def test_the_real_unet_has_its_parameters(real):
    assert sum(p.numel() for p in real["unet"].parameters()) == 2_567_463_684


def test_coverage_is_986_modules(real):
    names = named(real, LoRA(feed_forward=True, text_encoders=True))
    counts = {prefix: sum(name.startswith(prefix) for name in names.values()) for prefix in ("lora_unet", "lora_te1", "lora_te2")}
    assert counts == {"lora_unet": 722, "lora_te1": 72, "lora_te2": 192}
    assert len(set(names.values())) == 986
    assert len(named(real, LoRA())) == 560  # what diffusers' own script trains


def test_spelling_is_sgms(real):
    names = set(named(real, LoRA(feed_forward=True, text_encoders=True, convolution=True)).values())
    for expected in (
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_out_0",
        "lora_unet_input_blocks_8_1_transformer_blocks_9_ff_net_0_proj", "lora_unet_input_blocks_4_1_proj_in",
        "lora_unet_middle_block_1_transformer_blocks_9_attn2_to_k", "lora_unet_output_blocks_0_1_transformer_blocks_0_ff_net_2",
        "lora_unet_output_blocks_5_1_proj_out", "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
        "lora_te2_text_model_encoder_layers_31_mlp_fc2", "lora_unet_input_blocks_3_0_op", "lora_unet_output_blocks_2_2_conv",
        "lora_unet_middle_block_2_in_layers_2", "lora_unet_input_blocks_4_0_skip_connection",
    ):  # fmt: skip
        assert expected in names
    assert not any(re.search(r"down_blocks|up_blocks|mid_block", name) for name in names)


def test_text_encoder_1_keeps_its_prefix(real):
    """Current transformers drops `text_model.` from CLIPTextModel's names; files keep it."""
    paths = [path for path, module in real["text_encoder"].named_modules() if isinstance(module, torch.nn.Linear)]
    assert all(text_path(path).startswith("text_model.encoder.layers.") for path in paths)


# ---- Stability's own order ------------------------------------------------------------------------------------------------------------------------------

SGM = {  # sd_xl_base.yaml and sd_xl_refiner.yaml of Stability's generative-models
    "base": {"channels": 320, "mult": (1, 2, 4), "attention": (4, 2)},
    "refiner": {"channels": 384, "mult": (1, 2, 4, 4), "attention": (4, 2)},
}


def sgm_blocks(channels, mult, attention, res_blocks=2):
    """The constructor of sgm's UNetModel (modules/diffusionmodules/openaimodel.py), of which only the lists are built: each block's members in forward order
    as (kind, name, channels in, channels out)."""
    down, chans, width, scale = [], [channels], channels, 1
    for level, times in enumerate(mult):
        for _ in range(res_blocks):
            block = [("ResnetBlock2D", width, width := times * channels)] + [("Transformer2DModel", width, width)] * (scale in attention)
            down.append(block)
            chans.append(width)
        if level != len(mult) - 1:
            down.append([("Downsample2D", width, width)])
            chans.append(width)
            scale *= 2
    middle = [[("ResnetBlock2D", width, width), ("Transformer2DModel", width, width), ("ResnetBlock2D", width, width)]]
    up = []
    for level, times in reversed(list(enumerate(mult))):
        for index in range(res_blocks + 1):
            block = [("ResnetBlock2D", width + chans.pop(), width := times * channels)] + [("Transformer2DModel", width, width)] * (scale in attention)
            if level and index == res_blocks:
                block.append(("Upsample2D", width, width))
                scale //= 2
            up.append(block)
    lists = (("input_blocks.{}", down, 1), ("middle_block", middle, 0), ("output_blocks.{}", up, 0))
    return [
        (kind, f"{name.format(number + first)}.{place}", inside, out)
        for name, blocks, first in lists for number, block in enumerate(blocks) for place, (kind, inside, out) in enumerate(block)
    ]  # fmt: skip


def called(unet):
    """(kind, path) of diffusers' blocks in the order in which a forward pass calls them, on the meta device."""
    found = []
    for path, module in unet.named_modules():
        if (kind := type(module).__name__) in ("ResnetBlock2D", "Transformer2DModel", "Downsample2D", "Upsample2D"):
            module.register_forward_pre_hook(lambda _, __, pair=(kind, path): found.append(pair))
    ids = {"text_embeds": torch.zeros(1, 1280, device="meta"), "time_ids": torch.zeros(1, 6 if unet.config.cross_attention_dim == 2048 else 5, device="meta")}
    context = torch.zeros(1, 77, unet.config.cross_attention_dim, device="meta")
    unet(torch.zeros(1, 4, 32, 32, device="meta"), torch.zeros(1, device="meta"), context, added_cond_kwargs=ids)
    return found


FIRST = {  # one layer of each kind: its name within in diffusers, its name within in sgm
    "ResnetBlock2D": ("conv1", "in_layers.2"), "Transformer2DModel": ("proj_in", "proj_in"), "Downsample2D": ("conv", "op"), "Upsample2D": ("conv", "conv"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SGM)
def test_names_follow_sgms_own_constructor(kind):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNETS[kind])
    theirs, ours = sgm_blocks(**SGM[kind]), called(unet)
    assert len(theirs) == len(ours) == {"base": 17 + 11 + 4, "refiner": 22 + 11 + 6}[kind]
    for (wanted, name, inside, out), (found, path) in zip(theirs, ours, strict=True):
        own, other = FIRST[found]
        weight = unet.get_submodule(f"{path}.{own}").weight
        assert (wanted, out, inside) == (found, *weight.shape[:2])
        assert sgm_path(f"{path}.{own}", 2, plain_blocks(unet)) == f"{name}.{other}"
    assert plain_blocks(unet) == {"base": {2}, "refiner": {0, 3}}[kind]


def test_a_locon_of_the_refiner_has_sgms_names():
    with torch.device("meta"):
        parts = {"unet": UNet2DConditionModel(**UNETS["refiner"])}
    names = {place.path: place.kohya for place in Catalogue._of_parts(parts, "refiner").places.values() if place.kind == "conv"}
    assert names["up_blocks.0.upsamplers.0.conv"] == "lora_unet_output_blocks_2_1_conv"
    assert names["up_blocks.1.upsamplers.0.conv"] == "lora_unet_output_blocks_5_2_conv"
    assert names["up_blocks.2.upsamplers.0.conv"] == "lora_unet_output_blocks_8_2_conv" and len(set(names.values())) == len(names)


def test_a_name_that_no_unet_has_is_an_error():
    with pytest.raises(KeyError):
        sgm_path("attic.0.resnets.1", 2)
