"""Which part of the model changes, and the file that the change goes to.

A new method is one file and one word in `Method`: the contract tests iterate over it.
"""

from darkroom.methods.lora import LoRA

Method = LoRA  # becomes a union tagged by `kind` with its second member

__all__ = ["LoRA", "Method"]
