"""Files dropped onto a page of the studio, as a person drops them."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DROP = """
(files) => {
  const transfer = new DataTransfer();
  for (const [name, data] of files) transfer.items.add(new File([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], name));
  const drop = document.querySelector(".drop");
  for (const kind of ["dragover", "drop"]) drop.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
}
"""


def drop(page: Any, files: Iterable[Path], **more: bytes) -> None:
    """Onto the page's first .drop; `more` are files by name that lie nowhere."""
    contents = {path.name: path.read_bytes() for path in files} | {name.replace("_", "."): content for name, content in more.items()}
    page.evaluate(DROP, [(name, base64.b64encode(content).decode()) for name, content in contents.items()])
