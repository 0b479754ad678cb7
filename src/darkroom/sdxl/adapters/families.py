"""Say in words what a file is that is no adapter for this base. Called only after its keys or shapes were found not to fit."""

from __future__ import annotations

from collections.abc import Mapping

from darkroom.sdxl.adapters.header import Header

ANOTHER = "an adapter for {}, not for SDXL. Look for its SDXL version"
MARKS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("lora_controlnet",), "a ControlNet-LoRA of Stability, which carries parts of a ControlNet. ComfyUI reads it; give a ControlNet with --control"),
    (("lllite_",), "a ControlNet-LLLite, which is no LoRA. ComfyUI and sd-scripts read it; give a ControlNet with --control"),
    (("controlnet_cond_embedding", "input_hint_block", "control_model."), "a ControlNet. Give it with --control"),
    (("ip_adapter.", "image_proj."), "an IP-Adapter, which Darkroom does not read"),
    (("motion_modules.",), "a motion module of AnimateDiff, which Darkroom does not read"),
    (("emb_params", "string_to_param", "string_to_token"), "a textual inversion for SD 1.x or 2.x. SDXL's has clip_l and clip_g"),
    (("clip_l", "clip_g", "clip_l_out", "clip_g_out"), "a textual inversion. Give it with --embedding"),
    (("model.diffusion_model.", "conditioner.embedders.", "first_stage_model."), "a whole checkpoint. --base takes the whole model; --adapter takes adapters"),
    ((".q_layer.weight", ".lambda_layer"), "a T-LoRA of LyCORIS: it is measured from a random start that is not in the file. Export it as a LoRA"),
    ((".oft_R.",), "an OFT of peft or OneTrainer (oft_R), which Darkroom does not read. LyCORIS' and kohya's OFT (oft_blocks) it does"),
    (("distilled_guidance_layer",), ANOTHER.format("Chroma")),
    (("double_blocks", "single_blocks", "single_transformer_blocks"), ANOTHER.format("FLUX")),
    (("joint_blocks", "add_k_proj", "lora_te3_"), ANOTHER.format("SD 3")),
    (("img_mlp", "txt_mlp"), ANOTHER.format("Qwen-Image")),
    (("lora_prior_",), ANOTHER.format("Stable Cascade")),
    (("adaln_single", "adaLN_modulation", "cap_embedder"), ANOTHER.format("PixArt, Lumina or another transformer")),
    (("diffusion_model.blocks", "lora_unet_blocks_", "transformer.blocks"), ANOTHER.format("Wan or another video model")),
)
CONTEXTS = {768: "SD 1.x", 1024: "SD 2.x", 4096: "SD 3, FLUX or Kolors"}


def family(header: Header, wrong: Mapping[str, tuple[int, ...]]) -> str:
    """What the file seems to be, or '' where nothing tells. `wrong` are the keys that did not fit, with their shapes."""
    names = [name for name in header.names if name in wrong]
    for marks, what in MARKS:
        if any(name.startswith(mark) if mark.startswith(("clip_", "emb_")) else mark in name for mark in marks for name in names):
            return what
    contexts = _contexts(header)
    for width, what in CONTEXTS.items():
        if width in contexts:
            return ANOTHER.format(what)
    if contexts == {1280}:
        return "an adapter for the SDXL refiner alone, and this base is no refiner. Train or fetch one for the base"
    if any(name.startswith(("lora_te_", "lora_te_text_model")) for name in names):
        return ANOTHER.format("SD 1.x or 2.x")
    return ""


def _contexts(header: Header) -> set[int]:
    """Widths of the text that cross-attention reads: the inputs of its to_k. 2048 in SDXL, 768 in SD 1.x, 1024 in SD 2.x, 1280 in the refiner."""
    marks = ("attn2_to_k.lora_down", "attn2.to_k.lora.down", "attn2.to_k.lora_A", "attn2.processor.to_k_lora.down", "attn2_to_k.hada_w1_b", "attn2_to_k.diff")
    return {shape[1] for name, entry in header.entries.items() if any(mark in name for mark in marks) and len(shape := entry.shape) > 1}
