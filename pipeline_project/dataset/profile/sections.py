"""What stands on the profile's page, section by section."""

from collections.abc import Mapping
from typing import Any

from pipeline_project.dataset.profile import page, pictures
from pipeline_project.dataset.profile.gathering import NAMES, Measured
from pipeline_project.dataset.profile.outliers import FENCE, ISOLATED, MAX_Z, Outliers
from pipeline_project.stage import Picture

SHOWN_OUTLIERS, SHOWN_PAIRS = 24, 16


def sections(measured: Measured, outliers: Outliers, profile: Mapping[str, Any], shown: Mapping[str, Picture]) -> dict[str, str]:
    """The page's sections, in the order in which they stand."""
    images, keys = profile["images"], measured.table["key"]
    worst = [int(row) for row in outliers.worst(SHOWN_OUTLIERS)]
    thumbs = [pictures.thumbnail(pixels) for pixels in measured.pixels(worst)]
    outlying = [
        ([thumb], f"{keys.iloc[row]}: {outliers.reason(row, NAMES)}, score {outliers.scores[row]:.2f}")
        for row, thumb in zip(worst, thumbs, strict=True)
    ]
    near = profile["near_duplicates"]
    balance = [{"class": n, "images": c, "share": f"{c / images:.1%}"} for n, c in profile["labels"].items()]
    attributes = [
        {
            "attribute": name,
            "missing": column["missing"],
            "missing share": f"{column['missing'] / images:.1%}",
            "distinct": column["distinct"],
            "most frequent": ", ".join(f"{value[:40]} ({count})" for value, count in column["most_frequent"][:5]),
        }
        for name, column in profile["attributes"].items()
    ]
    counts = [
        {"measurement": name, "z_score": profile["outliers"]["z_score"][name], "quartiles": profile["outliers"]["iqr"][name]}
        for name in NAMES
    ]
    return {
        "balance": page.picture(shown["class_balance"], "images by day and class") + page.table(balance),
        "labels": page.paragraph(
            f"{near['groups']} groups of near duplicates with {near['images']} images, the largest of {near['largest']}; "
            f"{near['label_noise_groups']} groups carry different labels."
        )
        + page.figures(_noise_figures(measured, profile)),
        "rejected": page.picture(shown["rejected_by_day"], "rejected images by day and reason")
        + page.table([{"reason": code, "images": count} for code, count in profile["rejected"].items()])
        if profile["rejected"]
        else "",
        "outliers": page.paragraph(
            f"{profile['outliers']['isolated']} images have an isolation forest score above {ISOLATED:g}. The {len(worst)} highest scores, "
            "and the measurement that differs most (sd: standard deviations from the mean):"
        )
        + page.figures(outlying, small=True),
        "classes": page.picture(shown["contact_sheet"], "a sample of each class"),
        "features": page.picture(shown["distributions"], "histograms of all measurements")
        + page.paragraph("The line is the median. log bytes and log pixels are powers of 2 of the original file.", note=True)
        + page.table([{"measurement": n, **{k: v for k, v in f.items() if k != "histogram"}} for n, f in profile["features"].items()])
        + page.paragraph(f"Images more than {MAX_Z:g} standard deviations from the mean, and beyond {FENCE:g} interquartile ranges:")
        + page.table([row for row in counts if row["z_score"] or row["quartiles"]]),
        "attributes": page.table(attributes),
        "personal": _personal_section(profile["personal_data"]),
        "conversions": page.paragraph(f"Formats: {_told(profile['formats'])}. Colour modes as stored: {_told(profile['modes'])}.")
        + page.table([{"conversion": note, "images": count} for note, count in profile["conversions"].items()]),
        "days": page.table([{"day": day, "why": why} for day, why in profile["left_out_days"].items()]),
    }


def _noise_figures(measured: Measured, profile: Mapping[str, Any]) -> list[tuple[list[bytes], str]]:
    table, found = measured.table, []
    for pair in profile["suspected_label_noise"][:SHOWN_PAIRS]:
        thumbs = [pictures.thumbnail(pixels) for pixels in measured.pixels(pair["rows"])]
        named = " / ".join(f"{table['label'].iloc[row]}: {table['key'].iloc[row]}" for row in pair["rows"])
        more = f" and {pair['images'] - 2} more" if pair["images"] > 2 else ""
        found.append((thumbs, named + more))
    return found


def _personal_section(personal: Mapping[str, Any]) -> str:
    faces = personal["faces"]
    words = [f"Faces were looked for in {faces.get('searched', 0):,} of {faces.get('images', 0):,} decoded images"]
    words.append(f"found in {faces.get('with_faces', 0):,}" if faces.get("searched") else "none were searched")
    if personal["not_searched"]:
        words.append(f"columns not searched: {', '.join(personal['not_searched'])}")
    rows = [
        {
            "column": name,
            "texts": counts["texts"],
            "found and masked": _told({k[7:]: n for k, n in counts.items() if k != "texts"}) or "nothing",
        }
        for name, counts in personal["columns"].items()
    ]
    note = "How much the finders find of cases generated for it (not of this catalogue), with 95% intervals:"
    recall = page.paragraph(note, note=True) + page.table(personal["recall"]) if personal["recall"] else ""
    return page.paragraph("; ".join(words) + ".") + page.table(rows) + recall


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
