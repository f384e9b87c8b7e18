"""Decode, convert, resize, measure: the one transform of training, serving and edge. No torch here."""

from pipeline_project.imaging.decode import DecodedImage, DecodeLimits, ImageRejectedError, decode_image, sniff_format
from pipeline_project.imaging.measure import FEATURE_NAMES, measure
from pipeline_project.imaging.transform import to_pixels

__all__ = [
    "FEATURE_NAMES",
    "DecodeLimits",
    "DecodedImage",
    "ImageRejectedError",
    "decode_image",
    "measure",
    "sniff_format",
    "to_pixels",
]
