"""The data side of the settings tree: sources, store, ingest, privacy, splits."""

from datetime import date
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from pipeline_project.settings.values import Cron, Name, PositiveFloat, Ratio, Section


class TableSettings(Section):
    """How to read a source that is a table of images (R49): a row an image, with its label beside it."""

    location_column: str = Field(description="path or URL of the image")
    day_column: str = Field(description="the image's day, YYYY-MM-DD; empty: the day it was first seen")
    query: str = Field(description="what to select from a database source; empty for files")
    hosts: list[str] = Field(description="hosts that image URLs may name; others are refused")


class DataSettings(Section):
    """Where images and labels come from (R20-R22)."""

    source: str | dict[Name, str] = Field(
        min_length=1,
        description="a folder; s3://, gs:// or az://bucket/prefix/; a table of images (.csv, .parquet, or the name of an environment "
        "variable with a database URL as env:NAME); or several of them as {name: address}",
    )
    table: TableSettings
    labels_file: str
    image_column: str
    label_column: str
    classes: list[str] = Field(min_length=2, description="the label domain, in the order of the model's outputs")
    slice_columns: list[str] = Field(description="columns of labels.csv to compare accuracy over (D12)")
    text_columns: list[str] = Field(description="columns of free text, searched for personal data (R190)")
    start_date: date = Field(description="the first day partition; an earlier object is an error")

    @property
    def folder(self) -> Path | None:
        """The source, where it is one folder of this machine."""
        if not isinstance(self.source, str) or "://" in self.source or self.source.startswith("env:"):
            return None
        path = Path(self.source)
        return None if path.suffix in (".csv", ".parquet") else path

    @property
    def shown_source(self) -> str:
        """The source for people and records."""
        return self.source if isinstance(self.source, str) else ", ".join(f"{name}: {place}" for name, place in self.source.items())

    @field_validator("classes")
    @classmethod
    def _classes_are_distinct(cls, classes: list[str]) -> list[str]:
        if len(set(classes)) != len(classes) or any(not name.strip() for name in classes):
            raise ValueError("class names must be distinct and not blank")
        return classes


class StoreSettings(Section):
    """The artefact store with its three zones processed-data/, features/ and artifacts/ (R32)."""

    root: str = Field(min_length=1, description="s3://bucket/prefix, or a folder (relative to the runtime home)")
    endpoint_url: str | None = Field(description="an S3-compatible endpoint other than AWS")
    encryption: Literal["none", "AES256", "aws:kms"] = Field(description="server-side encryption at rest (R191)")


class ImageSettings(Section):
    """The one transform of training and serving (R25, R26)."""

    size: int = Field(ge=16, le=1024, description="side of the square model input, pixels")
    mean: tuple[Ratio, Ratio, Ratio]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]


class IngestSettings(Section):
    """What makes an image or a day acceptable (R33, R40-R45)."""

    formats: list[Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]] = Field(min_length=1)
    max_pixels: PositiveInt = Field(description="a larger image is quarantined before it is decoded")
    max_bytes: PositiveInt
    min_side: PositiveInt = Field(description="pixels")
    max_reject_rate: Ratio = Field(description="share of a day's images that may be quarantined")
    max_missing_label_rate: Ratio = Field(description="share of a day's images that may lack a label")
    max_day_drift: PositiveFloat = Field(description="PSI of a feature against the days before, above which the day is flagged")
    workers: PositiveInt = Field(description="processes that decode; does not change results")
    decode_seconds: PositiveFloat = Field(description="a worker that takes longer for one image is killed, the image quarantined")
    decode_memory_mb: PositiveInt = Field(description="a worker may not use more memory")
    settle_minutes: float = Field(ge=0, description="a day is asked for once its newest object is this old: uploads have settled")
    marker: str = Field(
        description="name of an object that says a day's folder is complete, such as _SUCCESS; empty: settle_minutes decides"
    )
    scan_keys: PositiveInt = Field(description="keys that one tick of the sensor may list; the next goes on from there")
    scan_seconds: float = Field(gt=0, le=20, description="seconds that one tick of the sensor may take")
    notifications: str = Field(description="URL of an SQS queue with the bucket's event notifications; empty: the source is listed")
    schedule: Cron


class PrivacySettings(Section):
    """Personal data in pictures and text (R190)."""

    faces: Literal["mask", "report", "off"] = Field(description="mask: pixels of faces are blurred in everything downstream")
    faces_model_uri: str = Field(description="a face detector in ONNX (YuNet), a path or s3:// address; empty: the bundled cascade")
    phone_regions: list[str] = Field(description="countries whose telephone numbers are looked for beside international ones, ISO 3166")

    @field_validator("faces", mode="before")
    @classmethod
    def _yaml_reads_off_as_false(cls, value: object) -> object:
        return "off" if value is False else value


class DatasetSettings(Section):
    """How images are split (R23, R24)."""

    train: Ratio
    validation: Ratio
    test: Ratio
    near_duplicate_distance: int = Field(ge=0, le=16, description="bits of 64 in which two perceptual hashes may differ")

    @model_validator(mode="after")
    def _ratios_sum_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6 or min(self.train, self.validation, self.test) <= 0:
            raise ValueError(f"train + validation + test must be 1, each above 0; they sum to {total:g}")
        return self
