"""Operators of the pipeline, as pipeline.yaml refers to them."""

from documents.extract import extract
from documents.layout import FindLayout
from documents.ocr import Ocr
from documents.preprocess import Preprocess

__all__ = ["FindLayout", "Ocr", "Preprocess", "extract"]
