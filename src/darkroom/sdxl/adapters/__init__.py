"""Adapter files of every method and layout of SDXL: read whole or refused with a reason, written so that other programs read them."""
