"""Which days may train, and why the others may not."""

from pipeline_project.ingest.inventory_checks import inventory_outcomes
from pipeline_project.stage import StageContext
from pipeline_project.storage import Artifact

_NAMES = ("raw_images", "validated_manifest", "image_pack", "image_features")
GoodDays = dict[str, dict[str, Artifact]]


def good_days(context: StageContext) -> tuple[GoodDays, dict[str, str]]:
    """The days that may train with their artefacts by name, and the reason for each of the others."""
    good, left_out = {}, {}
    for day in sorted({*context.artifacts.partitions("raw_images"), *context.artifacts.partitions("validated_manifest")}):
        found = {name: context.artifacts.find(name, day) for name in _NAMES}
        reason = _why_not(context, found)
        if reason:
            left_out[day] = reason
        else:
            good[day] = {name: artifact for name, artifact in found.items() if artifact is not None}
    return good, left_out


def _why_not(context: StageContext, found: dict[str, Artifact | None]) -> str:
    """Why a day may not train, with what to do; empty where it may."""
    inventory, manifest, pack, features = (found[name] for name in _NAMES)
    if inventory is None:
        return "raw_images is missing"
    if manifest is None or manifest.info["inventory"] != inventory.digest:
        return _not_validated(context, inventory, manifest)
    verdict = manifest.json("verdict.json")
    if not verdict["passed"]:
        return "; ".join(verdict["reasons"])
    return _not_packed(context, manifest, pack, features)


def _not_packed(context: StageContext, manifest: Artifact, pack: Artifact | None, features: Artifact | None) -> str:
    if pack is None or (packed := _packed(pack))["manifest"] != manifest.digest:
        return "image_pack is missing or of an older manifest"
    if packed["size"] != context.settings.image.size:
        return "image_pack has another image size"
    if features is None or features.json("origin.json")["pack"] != pack.digest:
        return "image_features is missing or of an older pack"
    return ""


def _packed(pack: Artifact) -> dict[str, object]:
    """What a pack says of itself: its manifest and image size."""
    about: dict[str, object] = pack.json("pack.json" if "pack.json" in pack.files else "rows.json")
    return about


def _not_validated(context: StageContext, inventory: Artifact, manifest: Artifact | None) -> str:
    """Why the newest inventory of a day has no manifest: what its blocking checks found, if that is the reason."""
    failed = [o for o in inventory_outcomes(inventory.json("inventory.json"), context.settings) if not o.passed]
    unread = {"missing_values"} if any(o.name == "labels_schema" for o in failed) else set()  # where labels cannot be read, none is there
    found = [o.detail.rstrip(".") for o in failed if o.name not in unread]
    return "; ".join(found) or ("validated_manifest was not made" if manifest is None else "raw_images changed after the manifest was made")
