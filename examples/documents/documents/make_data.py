"""Generator of the data set: run `python -m documents.make_data`.

It draws invoices, letters and receipts with random content, then skews, blurs, speckles or rotates them. The text uses
Pillow's built-in font, so every run with the same version of Pillow makes the same pixels.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from documents.camera import CONDITIONS, draw, take
from documents.page import Document
from documents.templates import TEMPLATES

FOLDER = Path(__file__).resolve().parents[1] / "data"
PER_STRATUM = 5
SEED = 71

_SOURCES = ("camera.py", "make_data.py", "templates.py")


@dataclass(frozen=True)
class Sheet:
    """Page of the data set, with its ground truth."""

    key: str
    pixels: NDArray[np.uint8]
    truth: Document
    strata: dict[str, str]


def data_folder() -> Path:
    """Return the folder of this version of the data, named by a hash of the code that generates it."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return FOLDER / digest.hexdigest()[:12]


def ensure_data() -> Path:
    """Return the data folder. If it is missing, make it first, which takes some seconds."""
    folder = data_folder()
    if not folder.exists():
        write(folder)
    return folder


def sheets() -> Iterator[Sheet]:
    """Yield all pages. The strata alternate, so that every prefix of the data set is balanced."""
    strata = list(product(TEMPLATES, CONDITIONS))
    for index in range(PER_STRATUM * len(strata)):
        template, condition = strata[index % len(strata)]
        rng = np.random.default_rng((SEED, index))
        draft = TEMPLATES[template](rng)
        yield Sheet(
            key=f"page-{index:03d}",
            pixels=take(draw(draft), condition, rng),
            truth=Document(draft.true_text(), tuple(sorted(draft.fields.items()))),
            strata={"template": template, "condition": condition.name},
        )


def write(folder: Path) -> None:
    """Write the data set into `folder` atomically, unless another process has made the folder meanwhile."""
    from PIL import Image

    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    try:
        described = []
        for sheet in sheets():
            Image.fromarray(sheet.pixels).save(unfinished / f"{sheet.key}.png")
            described.append(
                {"key": sheet.key, "text": sheet.truth.text, "fields": dict(sheet.truth.fields), "strata": sheet.strata}
            )
        (unfinished / "pages.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
        if not folder.exists():
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


if __name__ == "__main__":
    print(ensure_data())
