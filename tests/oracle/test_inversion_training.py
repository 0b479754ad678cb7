"""New words learned by us, against tokens added to stock transformers' encoders and trained there, as diffusers' textual_inversion_sdxl.py does."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from darkroom import pocket
from darkroom.jobs.train import prepare, run_training
from darkroom.sampling.draw import Kit, complete, draw_latents
from darkroom.sampling.request import Request
from darkroom.sampling.start import noise
from darkroom.sdxl.inversion import read_embedding
from darkroom.sdxl.text import Text
from darkroom.train.loop import Trainer
from darkroom.train.recipe import Recipe, load_recipe

PARTS = (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2"))
TOKENS = ["<toy>", "<toy>_1"]


@pytest.fixture
def recipe(cats: Path) -> Recipe:
    settings = (
        "device=cpu", "method.norm=free", "method.vectors=2", "optimizer.rate=1e-2", "data.batch_size=3", "train.max_grad_norm=1e9", "train.length=4 steps",
        "train.save_every=4 steps", "preview.steps=1", "preview.every=100 steps",
    )  # fmt: skip
    return load_recipe("inversion", settings, data={"images": str(cats), "subject": "<toy> cat"})


@dataclass
class Added:
    """Copies of the encoders with the tokens in their tables, the caption as diffusers writes it out, and the rows that learn."""

    model: Any

    def __post_init__(self) -> None:
        self.encoders, self.tokenizers, self.rows = [], [], []
        for part, name in PARTS:
            encoder = copy.deepcopy(getattr(self.model, part))
            tokenizer = CLIPTokenizer.from_pretrained(Path(pocket.resolve("pocket")) / name)
            assert tokenizer.add_tokens(TOKENS) == 2
            encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
            rows = tokenizer.convert_tokens_to_ids(TOKENS)
            table = encoder.get_input_embeddings().weight
            with torch.no_grad():
                table[rows] = table[tokenizer.convert_tokens_to_ids("cat</w>")].clone()
            table.requires_grad_(True)
            self.encoders.append(encoder)
            self.tokenizers.append(tokenizer)
            self.rows.append(rows)

    @property
    def tables(self) -> list[torch.nn.Parameter]:
        return [encoder.get_input_embeddings().weight for encoder in self.encoders]

    def vectors(self) -> list[torch.Tensor]:
        return [table.detach()[rows].clone() for table, rows in zip(self.tables, self.rows, strict=True)]

    def encode(self, captions: list[str]) -> Text:
        """encode_prompt of diffusers' script: penultimate states of both, pooled of the second."""
        states, pooled = [], None
        for encoder, tokenizer in zip(self.encoders, self.tokenizers, strict=True):
            spelled = [caption.replace("<toy>", " ".join(TOKENS)) for caption in captions]
            ids = tokenizer(spelled, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
            out = encoder(ids, output_hidden_states=True)
            states.append(out.hidden_states[-2])
            pooled = out[0]
        return Text(torch.cat(states, -1), pooled)


@pytest.fixture
def trainer(recipe: Recipe) -> Any:
    model, plan = prepare(recipe)
    attached = recipe.learner.attach(model, 0)
    yield Trainer(recipe, plan, model, attached)
    attached.detach()


def their_loss(added: Added, trainer: Trainer, number: int) -> torch.Tensor:
    shown = trainer.feed.shown(number)
    ours = trainer.feed.batch(number)
    batch = type(ours)(ours.latents, added.encode([each.caption for each in shown]), ours.ids, ours.weight, ours.mask)
    return trainer.recipe.objective.losses(trainer.predict, trainer.schedule, batch, *trainer._draw(number, shown, ours.latents)).mean()


def test_loss_and_gradients_are_those_of_added_tokens(trainer: Trainer) -> None:
    added = Added(trainer.model)
    loss = their_loss(added, trainer, 0)
    loss.backward()
    mine = trainer._learn(0)
    assert float(mine) == pytest.approx(float(loss.detach()), rel=1e-5)
    for vectors, table, rows in zip(trainer.parameters, added.tables, added.rows, strict=True):
        assert vectors.grad is not None and table.grad is not None and float(vectors.grad.abs().max()) > 1e-5
        torch.testing.assert_close(vectors.grad, table.grad[rows], rtol=1e-4, atol=1e-5 * float(vectors.grad.abs().max()))


def test_steps_are_those_of_added_tokens(trainer: Trainer) -> None:
    """Four steps of AdamW over the whole tables, all rows but the new ones put back after each, as the script does."""
    added = Added(trainer.model)
    optimizer = torch.optim.AdamW(added.tables, lr=1e-2, weight_decay=trainer.recipe.optimizer.weight_decay)
    kept = [table.detach().clone() for table in added.tables]
    began = added.vectors()
    for number in range(4):
        optimizer.zero_grad()
        their_loss(added, trainer, number).backward()
        optimizer.step()
        for table, rows, before in zip(added.tables, added.rows, kept, strict=True):
            new = table.detach()[rows].clone()
            with torch.no_grad():
                table.copy_(before)
                table[rows] = new
        trainer.step(number)
    for vectors, theirs, before in zip(trainer.parameters, added.vectors(), began, strict=True):
        assert float((theirs - before).abs().max()) > 0.02
        torch.testing.assert_close(vectors.detach(), theirs, rtol=0, atol=1e-5)


@pytest.fixture
def pipe() -> Any:
    from diffusers import StableDiffusionXLPipeline

    found = StableDiffusionXLPipeline.from_pretrained(Path(pocket.resolve("pocket")))
    found.set_progress_bar_config(disable=True)
    return found


def stock_latents(pipe: Any, request: Request) -> torch.Tensor:
    start = noise(request.seed, request.width, request.height, 4)
    with torch.no_grad():
        found: torch.Tensor = pipe(
            request.prompt, num_inference_steps=request.steps, guidance_scale=request.guidance, latents=start, width=request.width, height=request.height,
            output_type="latent",
        ).images  # fmt: skip
    return found


def load_words(pipe: Any, state: dict[str, torch.Tensor], word: str) -> None:
    """The lines that our model card gives."""
    pipe.load_textual_inversion(state["clip_l"], token=word, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
    pipe.load_textual_inversion(state["clip_g"], token=word, text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)


def test_stock_diffusers_draws_what_we_draw_with_the_learned_file(recipe: Recipe, pipe: Any, model: Any, tmp_path: Path) -> None:
    run = run_training(recipe, tmp_path / "run")
    request = complete(model, Request(prompt="a photo of <toy> cat on a red background", seed=5, steps=4))
    plain = draw_latents(Kit(model), request)
    ours = draw_latents(Kit(model, embeddings=(read_embedding(run.product, model),)), request)
    load_words(pipe, load_file(run.product), "<toy>")
    assert float((ours - plain).abs().max()) > 0.05, "the word does nothing: the test would prove nothing"
    torch.testing.assert_close(stock_latents(pipe, request), ours, rtol=0, atol=1e-4)


def test_stock_diffusers_draws_what_we_draw_with_a_pivotal_tuning_in_two_files(cats: Path, pipe: Any, model: Any, tmp_path: Path) -> None:
    """`adapter convert --unbundle` makes diffusers' pair of what a run leaves, and the run's own file is drawn with as it is."""
    from darkroom.jobs.adapter import Conversion, convert_adapter
    from darkroom.jobs.base import Easel
    from darkroom.sampling.request import Worn

    settings = ("device=cpu", "train.length=3 steps", "train.save_every=3 steps", "preview.steps=1", "preview.every=100 steps", "optimizer.rate=1e-2")
    run = run_training(load_recipe("pivotal", settings, data={"images": str(cats), "subject": "<toy> cat"}), tmp_path / "run")
    convert_adapter(Conversion(run.product, "kohya", tmp_path / "lora.safetensors", "pocket", unbundle=True))
    shutil.move(tmp_path / "lora-words" / "<toy>.safetensors", tmp_path / "<toy>.safetensors")
    asked = Request(prompt="a photo of <toy> cat", seed=5, steps=4, adapters=(Worn(file=str(run.product)),))
    with Easel("cpu", "fp32") as easel:
        kit, request = easel.kit(asked)
        assert [word.name for word in kit.embeddings] == ["<toy>"]
        ours = draw_latents(kit, request)
    pipe.load_lora_weights(tmp_path, weight_name="lora.safetensors")
    without = stock_latents(pipe, request)
    load_words(pipe, load_file(tmp_path / "<toy>.safetensors"), "<toy>")
    found = stock_latents(pipe, request)
    assert float((found - without).abs().max()) > 0.02
    torch.testing.assert_close(found, ours, rtol=0, atol=1e-3)
