"""Checks of the package: it answers like the trained model, and the server's transform gives the pack's very pixels."""

import numpy as np

from pipeline_project.dataset.reading import load_split
from pipeline_project.digests import sha256_bytes
from pipeline_project.imaging import DecodeLimits, prepare, to_pixels
from pipeline_project.ingest.privacy import mask_faces, open_face_finder
from pipeline_project.ingest.repairs import repairs
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
    """Original bytes through the server's decoder and resizer against the pixels that training saw; faces masked as ingest masks them.

    Originals that changed since they were ingested are left out; one at least must remain.
    """
    settings, store = context.settings, context.artifacts.bytes
    manifest = load_package(context.artifacts, digest, settings.trusted_signers).manifest
    test = load_split(context.artifacts, "test", context.artifacts.version("dataset_splits", manifest.dataset_version))
    source, limits, repaired = open_source(settings), DecodeLimits.from_settings(settings.ingest), repairs(store)
    finder = open_face_finder(settings.privacy) if settings.privacy.faces == "mask" else None
    equal, unequal, changed = 0, [], []
    for i in np.linspace(0, len(test.keys) - 1, min(_ORIGINALS, len(test.keys))).astype(int):
        key, data = test.keys[i], source.read(test.keys[i])
        repair = repaired.get(sha256_bytes(data))
        data = store.read(repair) if repair else data
        if sha256_bytes(data) != test.image_ids[i]:
            changed.append(key)
            continue
        pixels, decoded = prepare(data, limits, manifest.image_size, manifest.resample)
        faces = finder.find(decoded.pixels) if finder else []
        if faces:
            pixels = to_pixels(mask_faces(decoded.pixels, faces), manifest.image_size, manifest.resample)
        if np.array_equal(pixels, test.images[i]):
            equal += 1
        else:
            unequal.append(key)
    detail = f"{equal} of {equal + len(unequal)} originals give exactly the pixels of the pack."
    if changed:
        detail += f" {len(changed)} more changed since they were ingested."
    return CheckOutcome("transform_parity", equal > 0 and not unequal, detail, {"unequal": unequal, "changed": changed})
