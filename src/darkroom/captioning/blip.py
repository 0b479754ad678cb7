"""Captions by BLIP (Li et al. 2022), as transformers runs it, without torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from darkroom.captioning.exhibit import Exhibit
from darkroom.captioning.weights import loading
from darkroom.data.captions import one_line
from darkroom.data.manifest import Row
from darkroom.device import pick_device, pick_dtype
from darkroom.spec import Spec


class Blip(Spec):
    """One plain sentence: "a cat sitting on a sofa"."""

    kind: Literal["blip"] = "blip"
    model: str = Field("Salesforce/blip-image-captioning-large", description="A folder of a BlipForConditionalGeneration with its processor, or a hub id.")
    prompt: str = Field("", description='How every caption begins: "a photo of". Empty: as it likes.')
    beams: int = Field(3, ge=1, le=64, description="Beams of the search (BLIP's own captioning: 3).")
    longest: int = Field(75, ge=1, le=512, description="Tokens of a caption at most, of BLIP's tokenizer (sd-scripts: 75).")
    shortest: int = Field(5, ge=0, description="Tokens of a caption at least (BLIP's own captioning, sd-scripts: 5).")
    batch: int = Field(8, ge=1, description="Pictures at once.")

    def open(self, device: str, rows: Sequence[Row]) -> BlipWriter:
        """Raises ModelError."""
        return BlipWriter(self, device)


class BlipWriter:
    """BLIP in memory. Beam search draws nothing by chance."""

    looks = True

    def __init__(self, spec: Blip, device: str) -> None:
        self.spec, self.batch = spec, spec.batch
        self.device = pick_device(device)
        with loading(spec.model, "BLIP"):
            from transformers import AutoProcessor, BlipForConditionalGeneration

            self.processor: Any = AutoProcessor.from_pretrained(spec.model)
            model: Any = BlipForConditionalGeneration.from_pretrained(spec.model, dtype=pick_dtype("auto", self.device))
        self.model = model.to(self.device).eval()

    def write(self, exhibits: Sequence[Exhibit]) -> list[str]:
        """One sentence each; with a prompt it begins with the prompt."""
        import torch

        prompts = {"text": [self.spec.prompt] * len(exhibits)} if self.spec.prompt else {}
        inputs = self.processor(images=[exhibit.seen for exhibit in exhibits], return_tensors="pt", **prompts).to(self.device, self.model.dtype)
        with torch.no_grad():
            tokens = self.model.generate(
                **inputs, num_beams=self.spec.beams, max_new_tokens=self.spec.longest, min_new_tokens=self.spec.shortest, do_sample=False
            )
        return [one_line(text) for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]
