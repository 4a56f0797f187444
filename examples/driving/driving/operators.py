"""Operators of the pipeline, as pipeline.yaml refers to them."""

from driving.detect import Detect
from driving.read import ReadLarge, ReadSmall
from driving.track import track

__all__ = ["Detect", "ReadLarge", "ReadSmall", "track"]
