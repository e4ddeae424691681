"""Embedded data for segmentation and detection: real digits on real photographs, in Cityscapes' and in COCO's layout."""

from tasks.scenes.drawing import CLASSES, DIGITS, IGNORED, PALETTE
from tasks.scenes.store import Settings, make

__all__ = ["CLASSES", "DIGITS", "IGNORED", "PALETTE", "Settings", "make"]
