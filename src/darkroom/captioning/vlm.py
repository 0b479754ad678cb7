"""Captions by any vision-language model that transformers knows as "image-text-to-text": SmolVLM, LLaVA, Gemma 3, PaliGemma, Florence-2 ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from darkroom.captioning.exhibit import Exhibit
from darkroom.captioning.weights import loading
from darkroom.data.captions import one_line
from darkroom.data.manifest import Row
from darkroom.device import pick_device, pick_dtype
from darkroom.spec import Spec

if TYPE_CHECKING:
    import torch

PROMPT = "Write one sentence that says what this picture shows, in which style, and on which background. Answer with that sentence alone."


class Vlm(Spec):
    """A sentence or several, as you ask for them. Nothing in a model's folder is run as code."""

    kind: Literal["vlm"] = "vlm"
    model: str = Field("HuggingFaceTB/SmolVLM-Instruct", description="A folder of a model with its processor, or a hub id.")
    prompt: str = Field(PROMPT, description='What it is asked. Florence-2 wants its own words: "<DETAILED_CAPTION>".')
    longest: int = Field(120, ge=1, le=4096, description="Tokens of an answer at most, of the model's tokenizer.")
    batch: int = Field(1, ge=1, description="Pictures at once.")

    def open(self, device: str, rows: Sequence[Row]) -> VlmWriter:
        """Raises ModelError."""
        return VlmWriter(self, device)


class VlmWriter:
    """The model in memory. The likeliest word is taken each time: nothing is drawn by chance."""

    looks = True

    def __init__(self, spec: Vlm, device: str) -> None:
        self.spec, self.batch = spec, spec.batch
        self.device = pick_device(device)
        with loading(spec.model, "vision-language model"):
            from transformers import AutoModelForImageTextToText, AutoProcessor

            self.processor: Any = AutoProcessor.from_pretrained(spec.model)
            model: Any = AutoModelForImageTextToText.from_pretrained(spec.model, dtype=pick_dtype("auto", self.device))
        self.model = model.to(self.device).eval()
        if getattr(self.processor, "tokenizer", None) is not None:
            self.processor.tokenizer.padding_side = "left"  # an answer goes on from the end of the question

    def write(self, exhibits: Sequence[Exhibit]) -> list[str]:
        """Its answers, on one line each and without quotation marks around them."""
        import torch

        inputs = self._asked(exhibits).to(self.device, self.model.dtype)
        with torch.no_grad():
            tokens = self.model.generate(**inputs, max_new_tokens=self.spec.longest, do_sample=False, num_beams=1)
        return [unquoted(text) for text in self.processor.batch_decode(behind(inputs["input_ids"], tokens), skip_special_tokens=True)]

    def _asked(self, exhibits: Sequence[Exhibit]) -> Any:
        """Question and picture as the model wants them: by its chat template where it has one, else text beside pictures."""
        if not getattr(self.processor, "chat_template", None):
            return self.processor(text=[self.spec.prompt] * len(exhibits), images=[e.seen for e in exhibits], return_tensors="pt", padding=True)
        told = [{"type": "text", "text": self.spec.prompt}]
        chats = [[{"role": "user", "content": [{"type": "image", "image": exhibit.seen}, *told]}] for exhibit in exhibits]
        return self.processor.apply_chat_template(
            chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs={"padding": True}
        )


def behind(asked: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The answers without the questions (N, L), which decoders say again, and models with an encoder do not."""
    length = asked.shape[1]
    return tokens[:, length:] if bool((tokens[:, :length] == asked).all()) else tokens


def unquoted(text: str) -> str:
    """An answer on one line, without quotation marks around the whole."""
    line = one_line(text)
    return line[1:-1].strip() if len(line) > 1 and line[0] == line[-1] and line[0] in "\"'" else line
