"""Decode, convert, resize, measure: the one transform of training, serving and edge. No torch here."""

from pipeline_project.imaging.decode import DecodedImage, decode_image
from pipeline_project.imaging.formats import DecodeLimits, ImageRejectedError, sniff_format
from pipeline_project.imaging.hashing import perceptual_hash
from pipeline_project.imaging.measure import FEATURE_NAMES, measure
from pipeline_project.imaging.prepare import prepare
from pipeline_project.imaging.transform import to_pixels

__all__ = [
    "FEATURE_NAMES",
    "DecodeLimits",
    "DecodedImage",
    "ImageRejectedError",
    "decode_image",
    "measure",
    "perceptual_hash",
    "prepare",
    "sniff_format",
    "to_pixels",
]
