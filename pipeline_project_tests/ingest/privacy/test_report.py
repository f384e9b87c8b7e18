"""The report says what was searched; what was not searched never passes in production."""

from pathlib import Path
from typing import Any

import pytest

from pipeline_project.digests import canonical_json
from pipeline_project.ingest.privacy import count_texts, personal_data_metadata, personal_data_outcome, personal_data_report
from pipeline_project.ingest.privacy.report import measured_face_recall
from pipeline_project.settings import load_settings
from pipeline_project.stage import CheckOutcome, StageContext, Table

TEXTS = {"title": 10, "brand_tier": 10, "region": 9}


@pytest.fixture
def context(tmp_path: Path) -> StageContext:
    return StageContext.open(settings(tmp_path))


def settings(folder: Path, profile: str = "laptop", faces: str = '"off"') -> Any:
    environment = {"PIPELINE_HOME": str(folder), "PIPELINE__PRIVACY__FACES": faces}
    return load_settings("sample", environment=environment).model_copy(update={"profile": profile})


def outcome(report: dict[str, Any], folder: Path, profile: str) -> CheckOutcome:
    return personal_data_outcome(report, settings(folder, profile))


def test_nothing_found_in_texts_and_pictures_not_searched(context: StageContext, tmp_path: Path) -> None:
    report = personal_data_report(context, {}, TEXTS, [None, None])
    on_a_laptop, in_production = (outcome(report, tmp_path, profile) for profile in ("laptop", "production"))
    assert on_a_laptop.passed
    assert not in_production.passed
    for checked in (on_a_laptop, in_production):
        assert "not looked for in 2 of 2 images" in checked.detail
        assert checked.metadata["images_not_searched"] == 2
    assert report["faces"]["recall"] is None
    assert canonical_json(report) == canonical_json(personal_data_report(context, {}, dict(reversed(TEXTS.items())), [None, None]))


def test_what_was_found_in_texts_is_told_by_column(context: StageContext, tmp_path: Path) -> None:
    report = personal_data_report(context, {"title": {"phone": 1, "email": 2}}, TEXTS, [0])
    checked = outcome(report, tmp_path, "laptop")
    assert not checked.passed
    assert "3 pieces of personal data were found in texts and masked (title: 2 email, 1 phone)" in checked.detail
    assert report["text"]["columns"] == {"title": {"texts": 10, "found": {"email": 2, "phone": 1}}}
    assert {point["cases"] for point in report["text"]["recall"]["kinds"].values()} == {200}


def test_a_column_that_nobody_named_is_not_searched(context: StageContext, tmp_path: Path) -> None:
    report = personal_data_report(context, {}, {**TEXTS, "seller": 3, "empty": 0}, [])
    assert report["text"]["not_searched"] == ["seller"]
    assert outcome(report, tmp_path, "laptop").passed
    refused = outcome(report, tmp_path, "production")
    assert not refused.passed
    assert "seller (name the columns in data.text_columns" in refused.detail


@pytest.mark.slow
def test_masked_faces_pass_and_reported_ones_do_not(tmp_path: Path) -> None:
    lines: list[str] = []
    verdicts = {}
    for faces in ("mask", "report"):
        wanted = settings(tmp_path, "production", faces)
        context = StageContext.open(wanted, lines.append)
        report = personal_data_report(context, {}, TEXTS, [0, 2, 1, 0])
        verdicts[faces] = personal_data_outcome(report, wanted)
        assert report["faces"]["with_faces"] == 2
        assert report["faces"]["faces"] == 3
        assert report["faces"]["recall"]["points"]
        assert "LBP cascade" in report["faces"]["detector"]
    assert verdicts["mask"].passed
    assert "faces were found in 2 of 4 images and masked" in verdicts["mask"].detail.lower()
    assert not verdicts["report"].passed
    assert "NOT masked" in verdicts["report"].detail
    assert sum("measuring" in line for line in lines) == 1, "the recall of a detector is measured once a store"


def test_some_images_without_a_search_are_no_pass_in_production(context: StageContext, tmp_path: Path) -> None:
    report = personal_data_report(context, {}, TEXTS, [])
    assert outcome(report, tmp_path, "production").passed, "a day without images has nothing that was not searched"
    report["faces"] |= {"images": 3, "searched": 2}
    assert not outcome(report, tmp_path, "production").passed


def test_a_damaged_record_of_the_recall_is_measured_again(context: StageContext) -> None:
    class Blind:
        name, digest, side = "blind", "0", 1

        def find(self, rgb: object) -> list[Any]:
            return []

    first = measured_face_recall(context, Blind())
    (place,) = context.artifacts.bytes.list("artifacts/measured/")
    context.artifacts.bytes.write(place if isinstance(place, str) else place.key, b"{damaged")
    assert measured_face_recall(context, Blind()) == first


def test_the_page_shows_rows_for_every_column(context: StageContext) -> None:
    report = personal_data_report(context, {"title": {"iban": 1}}, {**TEXTS, "seller": 1}, [None])
    shown = personal_data_metadata(report)
    assert isinstance(shown["personal_data"], Table)
    assert list(shown["personal_data"].rows) == [
        {"column": "title", "texts": 10, "found": "1 iban"},
        {"column": "seller", "texts": None, "found": "not searched"},
        {"column": "pictures", "texts": None, "found": "not searched"},
    ]


def test_texts_are_counted_by_column() -> None:
    assert count_texts([{"a": "x", "b": " "}, {"a": "y"}]) == {"a": 2, "b": 0}
