"""Data set of drawn pages, with their content as ground truth."""

from __future__ import annotations

import json

import numpy as np

from circinus.operators import Item
from documents.make_data import ensure_data
from documents.page import Document, Page


def pages() -> list[Item]:
    """Return the 120 pages."""
    from PIL import Image

    folder = ensure_data()
    items = []
    for page in json.loads((folder / "pages.json").read_text(encoding="utf-8")):
        with Image.open(folder / f"{page['key']}.png") as image:
            pixels = np.array(image.convert("L"))
        truth = Document(page["text"], tuple(sorted(page["fields"].items())))
        items.append(Item(key=page["key"], value=Page(pixels), truth=truth, strata=page["strata"]))
    return items
