"""The operators that the pipeline names."""

from documents.extract import extract
from documents.layout import FindLayout
from documents.ocr import Ocr
from documents.preprocess import Preprocess

__all__ = ["FindLayout", "Ocr", "Preprocess", "extract"]
