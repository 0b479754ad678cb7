"""open_clip's names of a CLIP's tensors to transformers' own. HPS v2 is published so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from darkroom.errors import ModelError

HEADS = 16  # of ViT-H/14's picture and text towers, which HPS v2 is: the tensors do not tell
NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding", "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight", "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight", "logit_scale": "logit_scale",
}  # fmt: skip
PLACES = (
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."), (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."), (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"\.ln_([12])\.", r".layer_norm\1."), (r"\.mlp\.c_fc\.", ".mlp.fc1."), (r"\.mlp\.c_proj\.", ".mlp.fc2."), (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
)  # fmt: skip
TURNED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}  # (in, out) there, (out, in) here


def from_open_clip(state: Mapping[str, torch.Tensor], source: str, heads: int = HEADS) -> Any:
    """A CLIPModel in float32. Raises ModelError where the tensors are not a whole CLIP with vision transformer."""
    from transformers import CLIPModel

    try:
        model = CLIPModel(_config(state, heads))
        named = {name: value.float() for key, tensor in state.items() for name, value in _renamed(key, tensor).items()}
        missing, unknown = model.load_state_dict(named, strict=False)
    except (KeyError, RuntimeError, ValueError, IndexError) as error:
        raise ModelError(f"{source}: is no CLIP as open_clip saves it: {str(error).splitlines()[0]}. Name a CLIPModel folder instead.") from None
    absent = [name for name in missing if not name.endswith("position_ids")]
    if absent or unknown:
        raise ModelError(f"{source}: is no CLIP as open_clip saves it: {(absent or unknown)[0]} is {'missing' if absent else 'not known'}.")
    return model.eval().requires_grad_(False)


def _renamed(key: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensor under its new name; three tensors for the joint queries, keys and values."""
    if key == "attn_mask":
        return {}
    if key in TURNED:
        return {TURNED[key]: tensor.T}
    if key in NAMES:
        return {NAMES[key]: tensor}
    for pattern, new in PLACES:
        key = re.sub(pattern, new, key)
    if joint := re.fullmatch(r"(.*)\.attn\.in_proj_(weight|bias)", key):
        return {f"{joint[1]}.self_attn.{name}_proj.{joint[2]}": part for name, part in zip("qkv", tensor.chunk(3), strict=True)}
    return {key: tensor}


def _config(state: Mapping[str, torch.Tensor], heads: int) -> Any:
    from transformers import CLIPConfig, CLIPTextConfig, CLIPVisionConfig

    vocabulary, text_width = state["token_embedding.weight"].shape
    width, _, patch, _ = state["visual.conv1.weight"].shape
    side = round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5) * patch
    text = CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=text_width, intermediate_size=state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        num_hidden_layers=_depth(state, "transformer.resblocks."), num_attention_heads=heads, hidden_act="gelu",
        max_position_embeddings=state["positional_embedding"].shape[0], bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1,
    )  # fmt: skip
    seen = CLIPVisionConfig(
        hidden_size=width, intermediate_size=state["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0], image_size=side, patch_size=patch,
        num_hidden_layers=_depth(state, "visual.transformer.resblocks."), num_attention_heads=heads, hidden_act="gelu",
    )  # fmt: skip
    return CLIPConfig(text_config=text.to_dict(), vision_config=seen.to_dict(), projection_dim=state["text_projection"].shape[1])


def _depth(state: Mapping[str, torch.Tensor], stem: str) -> int:
    return 1 + max(int(key.removeprefix(stem).split(".")[0]) for key in state if key.startswith(stem))
