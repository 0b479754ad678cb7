"""Each metric answers its question, through any CLIP, and pocket's own scorer sees what it should."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from darkroom import pocket
from darkroom.data.picture import read_picture
from darkroom.errors import DatasetError, ModelError
from darkroom.metrics import METRICS, Aesthetic, ClipScore, Given, Likeness
from darkroom.metrics.eye import Eye


@pytest.fixture(scope="module")
def eye():
    return Eye.load(pocket.folder("scorer"))


@pytest.fixture(scope="module")
def cat_pictures():
    return [read_picture(path) for path in sorted(pocket.CATS.rglob("*.png"))]


def test_any_clip_folder_is_an_eye(tmp_path):
    """A stock CLIPModel with a stock tokenizer, against transformers' own forward pass and image processor."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

    text = CLIPTextConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, bos_token_id=49406, eos_token_id=49407)
    seen = CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8)
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=seen.to_dict(), projection_dim=8)).eval()
    model.save_pretrained(tmp_path)
    tokenizer = CLIPTokenizer.from_pretrained(pocket.folder() / "tokenizer")
    tokenizer.save_pretrained(tmp_path)
    pictures = [Image.fromarray(np.random.default_rng(i).integers(0, 255, (50, 70, 3), np.uint8)).filter(ImageFilter.GaussianBlur(3)) for i in range(3)]
    prompts = ["a cat", "a dog on a red background", "x"]
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    with torch.no_grad():
        out = model(
            **tokenizer(prompts, padding="max_length", max_length=77, return_tensors="pt"), pixel_values=processor(pictures, return_tensors="pt").pixel_values
        )
    expected = 100 * (out.image_embeds * out.text_embeds).sum(1).clamp(min=0)
    found = ClipScore(Given(Eye.load(tmp_path)))(pictures, prompts)
    torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-3, atol=0.05)
    with pytest.raises(ModelError, match=r"aesthetic\.safetensors"):
        Aesthetic(Given(Eye.load(tmp_path)))


def test_the_shared_text_tower_is_text_encoder_2(eye, model):
    with torch.no_grad():
        pooled = model.text_encoder_2(model.tokenizer_2("a red car", padding="max_length", return_tensors="pt").input_ids).text_embeds
    torch.testing.assert_close(eye.read(["a red car"]), torch.nn.functional.normalize(pooled, dim=-1), rtol=1e-4, atol=1e-5)


def test_clip_prefers_the_right_prompt(eye, cat_pictures):
    score = ClipScore(Given(eye))
    right = score(cat_pictures, ["a cat"] * len(cat_pictures))
    wrong = score(cat_pictures, ["a bicycle"] * len(cat_pictures))
    assert sum(r > w for r, w in zip(right, wrong, strict=True)) >= 8


def test_blurred_pictures_score_lower(eye, cat_pictures):
    score = Aesthetic(Given(eye))
    clean = score(cat_pictures, [""] * len(cat_pictures))
    blurred = score([p.filter(ImageFilter.GaussianBlur(p.width / 25)) for p in cat_pictures], [""] * len(cat_pictures))
    assert sum(c > b for c, b in zip(clean, blurred, strict=True)) >= 8


def test_likeness_knows_the_cats_it_never_saw(eye, cat_pictures):
    references = [read_picture(path) for path in sorted((pocket.CATS / "held_out").glob("*.png"))]
    train = [read_picture(path) for path in sorted((pocket.CATS / "train").glob("*.png"))]
    noise = [Image.fromarray(np.random.default_rng(i).integers(0, 255, (64, 64, 3), np.uint8)) for i in range(6)]
    likeness = Likeness(Given(eye, references))
    assert min(likeness(train, [""] * 6)) > max(likeness(noise, [""] * 6))
    assert likeness(references, [""] * 3)[0] <= 100.001


def test_likeness_without_references_is_refused(eye):
    with pytest.raises(DatasetError, match="--reference"):
        Likeness(Given(eye))


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_says_what_it_asks(name, eye, cat_pictures):
    """And every one that needs nothing from the hub answers with a number a picture, the same again, whatever the batch."""
    metric = METRICS[name]
    assert metric.name == name and metric.question.endswith("?") and metric.unit and metric.per in ("picture", "prompt")
    assert all(isinstance(value, bool) for value in (metric.higher_is_better, metric.prompted)) and isinstance(metric.blank, str)
    assert not metric.blank or metric.blank.startswith(("they", "the")), 'reads on after "because"'
    if name not in ("dino", "imagenet", "hpsv2", "pickscore", "imagereward"):
        given = Given(eye, cat_pictures[:3], cat_pictures[3:6], cat_pictures[6:], ["a cat"] * 3)
        scores = metric(given)(cat_pictures, ["a cat"] * 9)
        assert len(scores) == 9 and all(isinstance(score, float) and np.isfinite(score) for score in scores)
        assert metric(given)(cat_pictures, ["a cat"] * 9) == scores and metric(given).key == metric(given).key
        if metric.per == "picture":
            assert metric(given)(cat_pictures[4:6], ["a cat"] * 2) == pytest.approx(scores[4:6], rel=1e-4)
