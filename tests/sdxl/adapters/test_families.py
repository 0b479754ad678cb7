"""What is no adapter for SDXL is refused in words that say what it is."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from darkroom.errors import AdapterError
from darkroom.sdxl.adapters.layouts import read
from darkroom.sdxl.adapters.places import Catalogue

ATTENTION = "input_blocks_4_1_transformer_blocks_0_attn2_to_k"
FAMILIES = {
    "SD 1.x": {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 768)},
    r"SD 1\.x": {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 768)},
    r"SD 2\.x": {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 1024)},
    "FLUX": {"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": (4, 3072)},
    "FLUX,": {"transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight": (4, 3072)},
    "SD 3": {"transformer.transformer_blocks.0.attn.add_k_proj.lora_A.weight": (4, 1536)},
    "SD 3,": {"lora_unet_joint_blocks_0_x_block_attn_proj.lora_up.weight": (4, 4)},
    "refiner": {f"lora_unet_{ATTENTION}.lora_down.weight": (4, 1280), f"lora_unet_{ATTENTION}.lora_up.weight": (768, 4)},
    "ControlNet-LoRA": {"lora_controlnet": (1,), "input_blocks.0.0.up": (4, 4)},
    "ControlNet-LLLite": {"lllite_unet_input_blocks_4_1_proj_in.down.0.weight": (4, 4)},
    "--control": {"controlnet_cond_embedding.conv_in.weight": (4, 4)},
    "--embedding": {"clip_l": (2, 768), "clip_g": (2, 1280)},
    r"textual inversion for SD 1\.x": {"emb_params": (2, 768)},
    "--base takes": {"model.diffusion_model.input_blocks.0.0.weight": (4, 4)},
    "T-LoRA": {f"lora_unet_{ATTENTION}.q_layer.weight": (4, 4)},
    "oft_R": {"unet.down_blocks.1.attentions.0.proj_in.oft_R.weight": (4, 4)},
    "IP-Adapter": {"image_proj.proj.weight": (4, 4)},
    "keys name nothing in SDXL 1.0": {"something.else": (4, 4)},
    "bundled embeddings alone": {"bundle_emb.word.clip_l": (2, 768), "bundle_emb.word.clip_g": (2, 1280)},
}


@pytest.mark.parametrize("reason", FAMILIES)
def test_other_families_are_refused_in_words(reason: str, tmp_path: Path) -> None:
    save_file({name: torch.ones(shape) for name, shape in FAMILIES[reason].items()}, tmp_path / "x.safetensors")
    with pytest.raises(AdapterError, match=reason):
        read(tmp_path / "x.safetensors", Catalogue.of_sdxl())


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(save({}))
    with pytest.raises(AdapterError, match="no tensor at all"):
        read(tmp_path / "x.safetensors", Catalogue.of_sdxl())
