"""Darkroom fine-tunes Stable Diffusion XL on your own pictures and shows, with evidence, whether it got better."""

__version__ = "0.1.0"
