"""Drift of the inputs (R171), judged by Evidently, with thresholds that hold at the size of the day."""

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline_project.dataset.reading import load_version
from pipeline_project.imaging import FEATURE_NAMES
from pipeline_project.storage import ArtifactStore
from pipeline_project.tables import parquet_to_frame

if TYPE_CHECKING:
    import pandas as pd

_TAIL = 0.005
_DRAWS = 4000
_EMPTY_SHARE = 1e-4
_CATEGORIES = 20
_MOST_ROWS = 9_000  # above 10,000 Evidently counts an empty bin as a millionth of the smallest one, and any outlier as drift


@dataclass(frozen=True)
class ColumnDrift:
    """One feature: its PSI, the threshold it was held against, whether Evidently calls it drifted."""

    psi: float
    threshold: float
    drifted: bool


@dataclass(frozen=True)
class DataDrift:
    """Evidently's verdict over all features. `share` is the share of drifted features; `html` a self-contained page."""

    detected: bool
    share: float
    columns: dict[str, ColumnDrift]
    html: bytes


def training_measurements(artifacts: ArtifactStore, dataset: str) -> "pd.DataFrame":
    """Measurements of a dataset version's training images, at most 9,000 rows taken at even distances; no image is read.

    Args:
        dataset: digest of the dataset_splits artefact that the served model was trained on.

    Raises:
        ArtifactMissingError: the version or one of its days was removed.
    """
    import pandas as pd

    artifact = artifacts.version("dataset_splits", dataset)
    version = load_version(artifact)
    rows = parquet_to_frame(artifact.read("splits.parquet"))
    parts = []
    for day, chosen in rows[rows["split"] == "train"].groupby("day", sort=True):
        measured = artifacts.version("image_features", version.features[str(day)], str(day))
        table = parquet_to_frame(measured.read("features.parquet"))
        parts.append(table.iloc[chosen["pack_row"].to_numpy()][list(FEATURE_NAMES)])
    return thin(pd.concat(parts, ignore_index=True))


def judge_data_drift(
    reference: "pd.DataFrame", current: "pd.DataFrame", *, threshold: float, drift_share: float, significance: float, seed: int
) -> DataDrift:
    """Run Evidently's data drift report with PSI and read its verdict.

    Two things keep noise from looking like drift. Values outside the reference's 0.5%-99.5% range count as its edge: Evidently's bins
    span the extremes of both samples, and one outlier would stretch them. And a feature's threshold is raised above `threshold` where
    sampling alone exceeds it at this many rows (`noise_thresholds`); at a few hundred rows and more it is `threshold` itself.

    Args:
        reference: training measurements (N, F).
        current: measurements of the day (M, F), the same columns, without NaN.
        threshold: PSI above which a feature has drifted.
        drift_share: share of drifted features from which the data has drifted.
        significance: bound on the probability that a day from the reference's distribution is called drifted.
        seed: of the simulation of the noise.
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    columns = [str(name) for name in reference.columns]
    low, high = reference.quantile(_TAIL), reference.quantile(1 - _TAIL)
    constant = low == high  # clipping to one value would hide every change of such a feature
    low[constant], high[constant] = -np.inf, np.inf
    reference, current = reference.clip(low, high, axis=1), current[columns].clip(low, high, axis=1)
    thresholds = noise_thresholds(
        reference, len(current), threshold=threshold, drift_share=drift_share, significance=significance, seed=seed
    )
    definition = DataDefinition(numerical_columns=columns)
    preset = DataDriftPreset(
        columns=columns, num_method="psi", num_threshold=threshold, per_column_threshold=thresholds, drift_share=drift_share
    )
    snapshot = Report([preset], include_tests=True).run(
        Dataset.from_pandas(current, data_definition=definition), Dataset.from_pandas(reference, data_definition=definition)
    )
    found = snapshot.dict()
    counted = next(metric for metric in found["metrics"] if "drift_share" in metric["config"])
    values = {metric["config"]["column"]: float(metric["value"]) for metric in found["metrics"] if "column" in metric["config"]}
    failed = {_subject(test): test["status"] == "FAIL" for test in found["tests"]}
    drifts = {name: ColumnDrift(round(values[name], 4), round(thresholds[name], 4), failed[name]) for name in columns}
    html: str = snapshot.get_html_str(as_iframe=False)
    return DataDrift(failed[""], round(float(counted["value"]["share"]), 6), drifts, html.encode())


def noise_thresholds(
    reference: "pd.DataFrame", rows: int, *, threshold: float, drift_share: float, significance: float, seed: int
) -> dict[str, float]:
    """For each feature the larger of `threshold` and the PSI that sampling alone rarely exceeds at this many rows.

    Pairs of samples as large as the reference and as `rows` are drawn from the reference's own bins. With k drifted features of m needed
    for a verdict, each feature's quantile is taken at 1 - significance k / m: by Markov's inequality the chance of k or more at once is
    then at most `significance`, however the features depend on each other.
    """
    count = len(reference.columns)
    needed = max(1, ceil(drift_share * count))
    quantile = 1 - significance * needed / count
    random = np.random.default_rng(seed)
    thresholds = {}
    for name in reference.columns:
        noise = _noise(_bin_shares(reference[name].to_numpy(), rows), len(reference), rows, random)
        thresholds[str(name)] = max(threshold, float(np.quantile(noise, quantile)))
    return thresholds


def usable(measurements: "pd.DataFrame", prefix: str = "m_") -> "pd.DataFrame":
    """The rows that were measured, with the columns of `FEATURE_NAMES`."""
    table = measurements[[prefix + name for name in FEATURE_NAMES]].rename(columns=lambda name: str(name).removeprefix(prefix))
    return thin(table.dropna().reset_index(drop=True))


def thin(table: "pd.DataFrame") -> "pd.DataFrame":
    """At most 9,000 rows, taken at even distances."""
    return table.iloc[:: max(1, ceil(len(table) / _MOST_ROWS))].reset_index(drop=True)


def _bin_shares(values: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """Shares of the bins that Evidently uses: each value where there are few, else Sturges' number of equal widths over both samples."""
    unique, counts = np.unique(values, return_counts=True)
    if len(unique) > _CATEGORIES:
        bins = ceil(np.log2(len(values) + rows) + 1)
        counts = np.histogram(values, bins)[0]
    return np.asarray(counts / counts.sum())


def _noise(shares: NDArray[np.float64], reference_rows: int, rows: int, random: np.random.Generator) -> NDArray[np.float64]:
    """PSI of pairs of samples with these shares (draws,): empty bins count as Evidently counts them."""
    first, second = (random.multinomial(size, shares, size=_DRAWS) / size for size in (reference_rows, rows))
    first, second = (np.where(drawn == 0, _EMPTY_SHARE, drawn) for drawn in (first, second))
    return np.asarray(((first - second) * np.log(first / second)).sum(axis=1))


def _subject(test: "dict[str, dict[str, dict[str, str]]]") -> str:
    """The column that a test is about, or "" for the test over all columns."""
    return test["metric_config"]["params"].get("column", "")
