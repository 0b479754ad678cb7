"""A checkpoint of one file, in the layout that the field shares, loads as the folder it came from."""

import re

import pytest
import torch
from safetensors.torch import save_file

from darkroom import pocket
from darkroom.errors import ModelError
from darkroom.sdxl.formats import sgm_path
from darkroom.sdxl.model import load


def unet_in_sgm(unet):
    found = {}
    for name, tensor in unet.state_dict().items():
        path, _, leaf = name.rpartition(".")
        found[f"model.diffusion_model.{sgm_path(path, 1)}.{leaf}"] = tensor
    assert len(found) == len(unet.state_dict())
    return found


def vae_in_ldm(vae):
    last = len(vae.config.block_out_channels) - 1
    rules = [
        (r"encoder\.down_blocks\.(\d)\.resnets\.(\d)", r"encoder.down.\1.block.\2"),
        (r"encoder\.down_blocks\.(\d)\.downsamplers\.0", r"encoder.down.\1.downsample"),
        (r"decoder\.up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"decoder.up.{last - int(m[1])}.block.{m[2]}"),
        (r"decoder\.up_blocks\.(\d)\.upsamplers\.0", lambda m: f"decoder.up.{last - int(m[1])}.upsample"),
        (r"mid_block\.resnets\.0", "mid.block_1"), (r"mid_block\.resnets\.1", "mid.block_2"), (r"mid_block\.attentions\.0", "mid.attn_1"),
        (r"group_norm", "norm"), (r"to_q", "q"), (r"to_k", "k"), (r"to_v", "v"), (r"to_out\.0", "proj_out"),
        (r"conv_norm_out", "norm_out"), (r"conv_shortcut", "nin_shortcut"),
    ]  # fmt: skip
    found = {}
    for name, tensor in vae.state_dict().items():
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        found[f"first_stage_model.{new}"] = tensor[:, :, None, None] if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", new) else tensor
    return found


def text_1(encoder):
    prefix = "conditioner.embedders.0.transformer."
    return {prefix + (name if name.startswith("text_model.") else f"text_model.{name}"): tensor for name, tensor in encoder.state_dict().items()}


def text_2(encoder):
    """open_clip's layout: q, k and v in one matrix."""
    state = {name.removeprefix("text_model."): tensor for name, tensor in encoder.state_dict().items()}
    prefix, found = "conditioner.embedders.1.model.", {}
    names = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj"}
    for name, tensor in state.items():
        if match := re.match(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name):
            layer, module, leaf = match.groups()
            if module == "self_attn.q_proj":
                parts = [state[f"encoder.layers.{layer}.self_attn.{x}_proj.{leaf}"] for x in "qkv"]
                found[f"{prefix}transformer.resblocks.{layer}.attn.in_proj_{leaf}"] = torch.cat(parts)
            elif module in names:
                found[f"{prefix}transformer.resblocks.{layer}.{names[module]}.{leaf}"] = tensor
    found[prefix + "token_embedding.weight"] = state["embeddings.token_embedding.weight"]
    found[prefix + "positional_embedding"] = state["embeddings.position_embedding.weight"]
    found[prefix + "ln_final.weight"], found[prefix + "ln_final.bias"] = state["final_layer_norm.weight"], state["final_layer_norm.bias"]
    found[prefix + "text_projection"] = state["text_projection.weight"].T.contiguous()
    return found


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from darkroom.jobs.base import open_base

    model = open_base("pocket", "cpu", "fp32")
    tensors = unet_in_sgm(model.unet) | vae_in_ldm(model.vae) | text_1(model.text_encoder) | text_2(model.text_encoder_2)
    path = tmp_path_factory.mktemp("single") / "pocket.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def test_a_single_file_loads_as_its_folder(model, checkpoint):
    found = load(checkpoint, torch.device("cpu"), torch.float32, config=pocket.folder())
    for part, root in (("unet", found.unet), ("vae", found.vae), ("text_encoder", found.text_encoder), ("text_encoder_2", found.text_encoder_2)):
        mine, theirs = getattr(model, part).state_dict(), root.state_dict()
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine), part
    assert found.scheduler_config["beta_schedule"] == "scaled_linear"


def test_an_adapter_is_no_base(tmp_path):
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1, 1)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="but an adapter"):
        load(tmp_path / "a.safetensors", torch.device("cpu"), torch.float32)
