"""Tiny models with random weights, in the very files that the real ones come in: a BLIP and a LLaVA."""

from __future__ import annotations

from pathlib import Path

import torch

BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "cat", "dog", "red", "blue", "green", "on", "the", "sofa", "with", "hat", "asleep"]
CHAT = [
    "<pad>",
    "<s>",
    "</s>",
    "<unk>",
    "<image>",
    "USER",
    ":",
    "ASSISTANT",
    "what",
    "is",
    "this",
    "a",
    "red",
    "blue",
    "green",
    "cat",
    "dog",
    "on",
    "the",
    "sofa",
]
TEMPLATE = (
    "{% for m in messages %}USER : {% for c in m['content'] %}{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}"
    "{% endfor %}ASSISTANT"
)


def write_blip(folder: Path) -> Path:
    """As Salesforce's are: the model knows two tokens more than its tokenizer, and begins with the first of them."""
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipProcessor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(BERT), encoding="utf-8")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 16, "initializer_range": 0.7}
    marks = {"vocab_size": len(BERT) + 2, "bos_token_id": len(BERT), "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = sizes | marks | {"encoder_hidden_size": 16, "max_position_embeddings": 64}
    config = BlipConfig(text_config=text, vision_config=sizes | {"image_size": 32, "patch_size": 16}, projection_dim=16, image_text_hidden_size=16)
    torch.manual_seed(0)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    BlipProcessor(BlipImageProcessorPil(size={"height": 32, "width": 32}), BertTokenizer(str(folder / "vocab.txt"))).save_pretrained(folder)
    return folder


def write_llava(folder: Path, template: str | None = TEMPLATE) -> Path:
    """A LLaVA: CLIP's vision tower, a Llama, a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(CHAT)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "additional_special_tokens": ["<image>"]}
    vision = CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8)
    llama = LlamaConfig(
        vocab_size=len(CHAT), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2, initializer_range=0.7,
    )  # fmt: skip
    config = LlavaConfig(vision_config=vision, text_config=llama, image_token_id=4, vision_feature_select_strategy="default", vision_feature_layer=-1)
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=words, **marks), patch_size=8, vision_feature_select_strategy="default",
        image_token="<image>", num_additional_image_tokens=1, chat_template=template,
    ).save_pretrained(folder)  # fmt: skip
    return folder
