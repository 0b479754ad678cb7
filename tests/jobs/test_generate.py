"""What `generate` promises: tags, branches, batches, lean memory, previews, and the same bytes again."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.errors import AdapterError, PromptError
from darkroom.jobs.base import Easel
from darkroom.jobs.generate import again, draw_files, filled, generate, parse_adapter, requests_for, resolve
from darkroom.methods import LoRA
from darkroom.sampling.draw import complete, draw_latents
from darkroom.sampling.request import Refine, Request, Worn, read_request
from darkroom.sdxl.formats import write_adapter


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """A folder of five adapters that change a lot."""
    from darkroom.jobs.base import open_base

    model, folder = open_base("pocket", "cpu", "fp32"), tmp_path_factory.mktemp("adapters")
    for number, name in enumerate(("thor", "wrong", "ink", "clay", "neon")):
        attached = LoRA(rank=2, text_encoders=number % 2 == 1).attach(model, number)
        noise = torch.Generator().manual_seed(number)
        attached.load_state({key: tensor + 0.1 * torch.randn(tensor.shape, generator=noise) for key, tensor in attached.state().items()})
        write_adapter(folder / f"{name}.safetensors", attached.tensors(torch.float32), attached.metadata())
        attached.detach()
    return folder


def latents(request, **kit):
    with Easel("cpu", "fp32") as easel:
        opened, whole = easel.kit(request)
        return draw_latents(opened, whole)


def asked(**fields):
    return Request(**{"prompt": "a 3d cat on a red background", "steps": 4, "seed": 3} | fields)


class TestTags:
    def test_a_tag_is_an_adapter(self, adapters):
        tagged = resolve(asked(prompt="a 3d cat <lora:thor:0.5> on a red background"), adapters)
        assert tagged.adapters == (Worn(file=str(adapters / "thor.safetensors"), weight=0.5),)
        assert "lora" not in tagged.prompt
        plain = asked(prompt=tagged.prompt, adapters=(parse_adapter(f"{adapters / 'thor.safetensors'}:0.5"),))
        assert torch.equal(latents(tagged), latents(plain))
        assert not torch.equal(latents(tagged), latents(asked(prompt=tagged.prompt)))

    def test_text_and_unet_weights(self, adapters):
        worn = resolve(asked(prompt="cat <lora:wrong:0.2:0.9>"), adapters).adapters[0]
        assert (worn.text_weight, worn.weight) == (0.2, 0.9)
        drawn = [latents(asked(prompt="cat", adapters=(worn.model_copy(update={"text_weight": w}),))) for w in (0.2, 0.9, None)]
        assert not torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[1], drawn[2])

    def test_in_the_negative_prompt_it_is_worn_by_the_unconditional_branch_alone(self, adapters):
        request = resolve(asked(negative="wrong <lora:wrong:1>"), adapters)
        assert request.negative.strip() == "wrong" and request.adapters[0].branch == "unconditional"
        plain = asked(negative="wrong")
        assert not torch.equal(latents(request), latents(plain))
        bare = {"guidance": 1.0}  # without guidance there is no unconditional branch: the adapter must leave no trace
        assert torch.equal(latents(request.model_copy(update=bare)), latents(plain.model_copy(update=bare)))

    def test_the_branches_are_what_they_say(self, adapters):
        """u + g (c - u), each side computed with a model that wears its own adapters from end to end."""
        from darkroom.jobs.base import open_base
        from darkroom.methods.stack import Wear, worn
        from darkroom.prompt import read
        from darkroom.sampling.denoise import denoise, size_ids
        from darkroom.sampling.samplers import make_sampler
        from darkroom.sampling.start import noise
        from darkroom.sdxl.conditioning import condition
        from darkroom.sdxl.formats import read_adapter

        model = open_base("pocket", "cpu", "fp32")
        request = asked(negative="wrong", adapters=(parse_adapter(f"{adapters / 'wrong.safetensors'}:0.7@unconditional"),))
        file = read_adapter(adapters / "wrong.safetensors", model)
        ids = size_ids([(64, 64, 0, 0, 64, 64)])

        @torch.no_grad()
        def side(text, x, t, wears):
            with worn(model, wears):
                said = condition(model, read(text), 4).at(0)[0][1]
                return model.unet(x, t, said.states, added_cond_kwargs={"text_embeds": said.pooled, "time_ids": ids}, return_dict=False)[0]

        def predict(x, t, step):
            c, u = side(request.prompt, x, t, []), side("wrong", x, t, [Wear(file, 0.7)])
            return u + request.guidance * (c - u)

        sampler = make_sampler("euler", model.scheduler_config, 4, model.device)
        by_hand = denoise(predict, sampler, noise(3, 64, 64, 4) * sampler.init_noise_sigma)
        torch.testing.assert_close(latents(request), by_hand, rtol=0, atol=0)

    def test_several_add_up_and_the_weights_come_back(self, adapters, model):
        before = {name: tensor.clone() for part in model.parts.values() for name, tensor in part.state_dict().items()}
        text = "a 3d cat <lora:thor:0.3> <lora:wrong:0.2> <lora:ink:0.3> <lora:clay:0.7> <lora:neon:1.2>"
        one, other = resolve(asked(prompt=text), adapters), resolve(asked(prompt="a 3d cat <lora:thor:0.15> <lora:thor:0.15>"), adapters)
        assert [w.weight for w in one.adapters] == [0.3, 0.2, 0.3, 0.7, 1.2]
        assert torch.isfinite(latents(one)).all()
        single = resolve(asked(prompt="a 3d cat <lora:thor:0.3>"), adapters).model_copy(update={"prompt": other.prompt})
        torch.testing.assert_close(latents(other), latents(single), rtol=1e-4, atol=1e-4)
        assert all(torch.equal(before[name], tensor) for part in model.parts.values() for name, tensor in part.state_dict().items())

    def test_an_unknown_name_lists_what_is_near(self, adapters, tmp_path):
        with pytest.raises(AdapterError, match=r'Did you mean "thor"\?.*clay, ink, neon, thor, wrong'):
            resolve(asked(prompt="<lora:thorr:1>"), adapters)
        with pytest.raises(AdapterError, match="There is no such folder"):
            resolve(asked(prompt="<lora:thor:1>"), tmp_path / "nowhere")
        with pytest.raises(PromptError, match="--adapters"):
            latents(asked(prompt="<lora:thor:1>"))


def test_presets_become_words(tmp_path):
    assert resolve(asked(negative="@safe")).negative == "nsfw, nude, censored"
    with pytest.raises(PromptError, match="basic"):
        resolve(asked(negative="@basik"))


@pytest.mark.parametrize("count", [3, 4])
def test_a_batch_draws_what_each_alone_draws(tmp_path, count):
    template = asked(batch=4)
    draw_files([(r, tmp_path / f"{r.seed}.png") for r in requests_for(["a 3d cat"], template, count)], "cpu")
    for path in sorted(tmp_path.glob("*.png")):
        assert again(path, tmp_path / "again", "cpu")[1], path
    alone = template.model_copy(update={"prompt": "a 3d cat", "batch": 1})
    draw_files([(alone, tmp_path / "alone.png")], "cpu")
    one, many = (np.asarray(Image.open(tmp_path / name), int) for name in ("alone.png", f"{alone.seed}.png"))
    assert np.abs(one - many).max() <= 1


def test_batches_are_filled_evenly():
    found = filled(requests_for(["a cat", "a dog"], asked(), 20), "cpu", "fp32", "full")
    assert [r.batch for r in found] == [7] * 40
    assert filled(requests_for(["a cat"], asked(width=512, height=512), 20), "cpu", "fp32", "full")[0].batch == 1


@pytest.mark.parametrize("memory", ["model", "sequential"])
def test_lean_memory_draws_the_same_bytes(tmp_path, adapters, memory):
    request = asked(steps=2, refiner=Refine(), adapters=(Worn(file=str(adapters / "wrong.safetensors"), branch="unconditional"),), negative="wrong")
    draw_files([(request, tmp_path / "full.png")], "cpu")
    draw_files([(request, tmp_path / "lean.png")], "cpu", memory=memory)
    assert (tmp_path / "full.png").read_bytes() == (tmp_path / "lean.png").read_bytes()


def test_everything_is_drawn_again(tmp_path, adapters):
    """One PNG of each kind, drawn anew from what it carries."""
    Image.new("RGB", (64, 64), (200, 60, 40)).save(tmp_path / "start.png")
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 64, 32))
    mask.save(tmp_path / "mask.png")
    start = str(tmp_path / "start.png")
    wanted = [
        asked(sampler="Euler a"), asked(sampler="DPM++ 2M SDE Karras", guidance_rescale=0.5), asked(clip_skip=1), asked(image=start, strength=0.6),
        asked(image=start, mask=str(tmp_path / "mask.png")), asked(image=start, outpaint=(0, 0, 0, 16)), asked(refiner=Refine(fraction=0.5)),
        asked(prompt="a (3d:1.3) cat [on a red background:in a forest:0.5]"), asked(prompt="a (3d cat)++", negative="(blurry)1.2"), asked(upscale=2),
        asked(adapters=(Worn(file=str(adapters / "thor.safetensors"), weight=0.4),)), asked(tiling=True, width=128, height=64), asked(negative=""),
    ]  # fmt: skip
    paths = generate([w.model_copy(update={"steps": 3}) for w in wanted], tmp_path / "o", "cpu")
    assert len({path.read_bytes() for path in paths}) == len(wanted)
    for path in paths:
        assert again(path, tmp_path / "again", "cpu")[1], read_request(path)
    assert Image.open(paths[9]).size == (128, 128) and Image.open(paths[5]).size == (64, 80)


def test_a_changed_picture_is_noticed(tmp_path):
    Image.new("RGB", (64, 64), (200, 60, 40)).save(tmp_path / "start.png")
    (path,) = generate([asked(steps=2, image=str(tmp_path / "start.png"))], tmp_path / "o", "cpu")
    Image.new("RGB", (64, 64), (0, 60, 40)).save(tmp_path / "start.png")
    with pytest.raises(Exception, match="its content changed"):
        again(path, tmp_path / "again", "cpu")


def test_what_a_png_carries(tmp_path, adapters):
    thor = parse_adapter(str(adapters / "thor.safetensors"))
    request = resolve(asked(steps=2, negative="<lora:wrong:0.5>", refiner=Refine(), clip_skip=1, adapters=(thor,)), adapters)
    (path,) = generate([request], tmp_path, "cpu")
    opened = Image.open(path)
    facts = json.loads(opened.text["darkroom"])
    assert len(facts["base_sha256"]) == len(facts["adapters"][0]["sha256"]) == len(facts["refiner"]["sha256"]) == 64
    text = opened.text["parameters"]
    assert "<lora:thor:1>" in text.split("\n")[0] and text.split("\n")[1] == "Negative prompt: <lora:wrong:0.5>"
    assert f'Lora hashes: "thor: {facts["adapters"][0]["short"]}, wrong: ' in text and "Refiner switch at: 0.8" in text and "Clip skip: 3" in text


def test_the_short_hash_is_a1111s(adapters):
    """sha256 of everything after the header, as A1111's addnet hash has it."""
    import hashlib

    data = (adapters / "thor.safetensors").read_bytes()
    body = data[8 + int.from_bytes(data[:8], "little") :]
    with Easel("cpu", "fp32") as easel:
        _, whole = easel.kit(asked(adapters=(parse_adapter(str(adapters / "thor.safetensors")),)))
    assert whole.adapters[0].short == hashlib.sha256(body).hexdigest()[:12]


def test_previews_show_the_way(tmp_path):
    from darkroom.sampling.peek import Previews

    (path,) = generate([asked(steps=6)], tmp_path, "cpu", previews=Previews(2))
    shown = sorted((tmp_path / "steps").glob("*.png"))
    assert [p.name for p in shown] == [f"{path.stem}-step{n:03d}.png" for n in (2, 4, 6)]
    last, end = (np.asarray(Image.open(p).convert("RGB"), int) for p in (shown[-1], path))
    assert np.abs(last - end).mean() < 2 and np.abs(np.asarray(Image.open(shown[0]), int) - end).mean() > 5


def test_a_tiny_autoencoder_decodes_previews(shared):
    """The real tiny SDXL autoencoder of ../shared: its decoder through our function equals diffusers' own call."""
    from diffusers import AutoencoderTiny

    from darkroom.sampling.peek import decode_tiny

    torch.manual_seed(0)
    tiny, latent = AutoencoderTiny().eval(), torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        theirs = tiny.decode(latent).sample
    expected = ((theirs / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy()[0]
    assert np.array_equal(np.asarray(decode_tiny(tiny, latent)), expected.astype(np.uint8))


def test_and_joins_two_predictions(model):
    """A AND B: u + g ((a - u) + (b - u)); with the same text twice at half the weight it is that text alone."""
    one = latents(asked(prompt="a 3d cat"))
    both = latents(asked(prompt="a 3d cat :0.5 AND a 3d cat :0.5"))
    torch.testing.assert_close(both, one, rtol=1e-3, atol=2e-3)
    assert not torch.allclose(latents(asked(prompt="a 3d cat AND a red background")), one, atol=1e-2)


def test_a_prompt_of_ten_thousand_words_is_drawn_in_chunks():
    found = latents(asked(prompt="cat " * 10_000, steps=1))
    assert torch.isfinite(found).all()


def test_a_completed_request_completes_to_itself(model):
    whole = complete(model, asked())
    assert complete(model, whole) == whole and (whole.width, whole.height) == (64, 64)


def test_a_textual_inversion_by_file(tmp_path, model):
    """A word whose vectors are those of "cat" draws what "cat" draws; its PNG carries the file's hash and is drawn again."""
    from safetensors.torch import save_file

    from darkroom.sampling.request import Word

    rows = {}
    for clip, tokenizer, encoder in (("clip_l", model.tokenizer, model.text_encoder), ("clip_g", model.tokenizer_2, model.text_encoder_2)):
        (token,) = tokenizer("cat", add_special_tokens=False).input_ids
        rows[clip] = encoder.get_input_embeddings().weight[token][None].detach().clone()
    save_file(rows, tmp_path / "kitty.safetensors")
    worded = asked(prompt="a 3d kitty on a red background", embeddings=(Word(file=str(tmp_path / "kitty.safetensors")),))
    assert torch.equal(latents(worded), latents(asked(prompt="a 3d cat on a red background")))
    (path,) = generate([worded.model_copy(update={"steps": 2})], tmp_path / "o", "cpu")
    assert read_request(path).embeddings[0].name == "kitty" and "TI hashes" in Image.open(path).text["parameters"]
    assert again(path, tmp_path / "again", "cpu")[1]
