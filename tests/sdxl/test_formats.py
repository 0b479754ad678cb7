"""Names: full coverage of the real SDXL, in the spelling that the field reads."""

import re

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from darkroom.methods.lora import LoRA
from darkroom.sdxl.formats import kohya_name, text_path

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
