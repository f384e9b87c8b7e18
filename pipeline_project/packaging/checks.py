"""Checks of the package: it answers like the trained model, and the server's transform gives the pack's very pixels."""

import numpy as np

from pipeline_project.dataset.reading import load_split
from pipeline_project.imaging import DecodeLimits, decode_image, to_pixels
from pipeline_project.ingest.sources import open_source
from pipeline_project.packaging.package import load_package
from pipeline_project.stage import CheckOutcome, StageContext

_ORIGINALS = 32
_MIN_AGREEMENT = 0.97


def check_package(context: StageContext) -> list[CheckOutcome]:
    """parity with the trained model, and transform_parity with the packs."""
    artifact = context.artifacts.latest("model_package")
    return [_parity(context), _transform_parity(context, artifact.digest)]


def _parity(context: StageContext) -> CheckOutcome:
    artifact, settings = context.artifacts.latest("model_package"), context.settings.packaging
    parity, variant = artifact.info["parity"], artifact.info["variant"]
    difference, agreement = parity["fp32_max_logit_difference"], parity["agreement"][variant]
    drop = parity["accuracy"]["trained"] - parity["accuracy"][variant]
    passed = difference <= settings.max_logit_difference and drop <= settings.max_accuracy_drop and agreement >= _MIN_AGREEMENT
    detail = (
        f"fp32 logits differ by at most {difference:.2g} (limit {settings.max_logit_difference:g}); {variant} agrees on {agreement:.2%} of "
        f"validation (at least {_MIN_AGREEMENT:.0%}) and loses {drop:.2%} accuracy (limit {settings.max_accuracy_drop:.2%})."
    )
    return CheckOutcome("parity", passed, detail, {"fp32_max_logit_difference": difference, "agreement": agreement, "accuracy_drop": drop})


def _transform_parity(context: StageContext, digest: str) -> CheckOutcome:
    """Original bytes through the server's decoder and resizer against the pixels that training saw."""
    settings = context.settings
    package = load_package(context.artifacts, digest, settings.trusted_signers)
    test = load_split(context.artifacts, "test", context.artifacts.version("dataset_splits", package.manifest.dataset_version))
    source, limits = open_source(settings), DecodeLimits.from_settings(settings.ingest)
    chosen = np.linspace(0, len(test.keys) - 1, min(_ORIGINALS, len(test.keys))).astype(int)
    unequal = [
        test.keys[i]
        for i in chosen
        if not np.array_equal(to_pixels(decode_image(source.read(test.keys[i]), limits).image, package.manifest.image_size), test.images[i])
    ]
    detail = f"{len(chosen) - len(unequal)} of {len(chosen)} originals give exactly the pixels of the pack."
    return CheckOutcome("transform_parity", not unequal, detail, {"unequal": unequal})
