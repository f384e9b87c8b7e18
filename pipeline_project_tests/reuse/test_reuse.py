"""A reusable step on a store of its own: when it computes, when it does not, and what it says."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_project.reuse import Recipe, ReusableStep
from pipeline_project.settings import load_settings
from pipeline_project.stage import Markdown, Picture, StageContext, StepResult, Table
from pipeline_project.storage import ArtifactMissingError

DAY = date(2026, 11, 5)


@pytest.fixture
def open_context(tmp_path: Path) -> Callable[..., StageContext]:
    def opened(run: str | None = None, **overrides: str) -> StageContext:
        environment = {"PIPELINE_HOME": str(tmp_path), **{f"PIPELINE__{name}": value for name, value in overrides.items()}}
        return StageContext.open(load_settings("sample", environment=environment), run=run)

    return opened


@pytest.fixture
def context(open_context: Callable[..., StageContext]) -> StageContext:
    made = open_context(run="0123456789")
    made.artifacts.publish("raw_images", {"x": b"first"}, partition=DAY.isoformat())
    return made


class Counted:
    """A step of a day that counts how often it computes; its payload is its input and a setting."""

    def __init__(self) -> None:
        self.calls = 0

    def step(self, **arguments: object) -> ReusableStep[[date]]:
        def validate(context: StageContext, day: date) -> StepResult:
            self.calls += 1
            data = context.artifacts.latest("raw_images", day.isoformat()).read("x")
            payload = {"y": data + str(context.settings.training.epochs).encode()}
            artifact = context.artifacts.publish("validated_manifest", payload, partition=day.isoformat(), info={"call": self.calls})
            shown = {"count": 3, "rows": Table([{"a": 1, "b": "x"}]), "drawn": Picture(b"\x89PNG"), "said": Markdown("**x**"), "none": []}
            return StepResult(artifact, shown)

        validate.__module__ = "pipeline_project.ingest.manifest"
        chosen = {"inputs": ["raw_images"], "settings": ["training.epochs"], **arguments}
        return ReusableStep(validate, "validated_manifest", **chosen)  # type: ignore[arg-type]


def test_the_second_call_computes_nothing_and_gives_the_same_with_its_reason(context: StageContext) -> None:
    counted = Counted()
    step = counted.step()
    first, second = step(context, DAY), step(context, DAY)
    assert counted.calls == 1
    assert second.artifact == first.artifact
    assert (first.metadata["reused"], first.metadata["reuse_reason"]) == (False, "made for the first time")
    assert second.metadata["reused"] is True
    assert f"made {first.artifact.created} by run 01234567" in str(second.metadata["reuse_reason"])
    assert second.metadata["reuse_key"] == first.metadata["reuse_key"]
    shown = {name: value for name, value in first.metadata.items() if not name.startswith("reuse")}
    assert {name: second.metadata[name] for name in shown} == shown


def test_each_change_computes_again_and_is_named(context: StageContext, open_context: Callable[..., StageContext]) -> None:
    counted = Counted()
    counted.step()(context, DAY)
    told = counted.step()(open_context(TRAINING__EPOCHS="7"), DAY).metadata["reuse_reason"]
    assert told == "made: changed settings: training.epochs from 30 to 7"
    context.artifacts.publish("raw_images", {"x": b"second"}, partition=DAY.isoformat())
    told = str(counted.step()(open_context(TRAINING__EPOCHS="7"), DAY).metadata["reuse_reason"])
    assert told.startswith("made: changed inputs: raw_images (")
    told = counted.step(code=["ingest.pack"])(open_context(TRAINING__EPOCHS="7"), DAY).metadata["reuse_reason"]
    assert "code: " in str(told) and "ingest/pack.py" in str(told)
    assert counted.calls == 4


def test_going_back_makes_the_earlier_result_the_newest_again(context: StageContext, open_context: Callable[..., StageContext]) -> None:
    counted = Counted()
    first = counted.step()(context, DAY)
    counted.step()(open_context(TRAINING__EPOCHS="7"), DAY)
    assert context.artifacts.latest("validated_manifest", DAY.isoformat()).digest != first.artifact.digest
    again = counted.step()(context, DAY)
    assert counted.calls == 2
    assert context.artifacts.latest("validated_manifest", DAY.isoformat()) == first.artifact == again.artifact


def test_a_step_that_continues_from_the_newest_version_does_not_go_back(
    context: StageContext, open_context: Callable[..., StageContext]
) -> None:
    counted = Counted()
    step = counted.step(newest_only=True)
    step(context, DAY)
    step(open_context(TRAINING__EPOCHS="7"), DAY)
    step(context, DAY)
    assert counted.calls == 3
    step(context, DAY)
    assert counted.calls == 3


def test_what_an_unrelated_setting_says_does_not_matter(context: StageContext, open_context: Callable[..., StageContext]) -> None:
    counted = Counted()
    counted.step()(context, DAY)
    counted.step()(open_context(TRAINING__SEED="7"), DAY)
    assert counted.calls == 1


@pytest.mark.parametrize("harm", ["change", "remove", "forget"])
def test_a_damaged_or_removed_result_is_made_anew(context: StageContext, tmp_path: Path, harm: str) -> None:
    counted = Counted()
    artifact = counted.step()(context, DAY).artifact
    file = tmp_path / "store" / artifact.prefix / ("artifact.json" if harm == "forget" else "y")
    if harm == "change":
        file.write_bytes(b"other")
    else:
        file.unlink()
    again = counted.step()(context, DAY)
    assert counted.calls == 2
    assert "missing, damaged" in str(again.metadata["reuse_reason"])
    again.artifact.verify()
    assert again.artifact.digest == artifact.digest


def test_a_run_can_ask_for_everything_anew(context: StageContext) -> None:
    counted = Counted()
    counted.step()(context, DAY)
    again = counted.step()(replace(context, recompute=True), DAY)
    assert counted.calls == 2
    assert again.metadata["reuse_reason"] == "made anew: the run asks for it"


def test_a_result_that_is_not_sound_is_made_anew(context: StageContext) -> None:
    counted = Counted()
    counted.step()(context, DAY)
    counted.step(sound=lambda _, artifact: artifact.info["call"] > 1)(context, DAY)
    assert counted.calls == 2
    counted.step(sound=lambda _, artifact: artifact.info["call"] > 1)(context, DAY)
    assert counted.calls == 2


def test_a_missing_input_is_named_as_the_step_itself_would(context: StageContext) -> None:
    with pytest.raises(ArtifactMissingError, match="Materialize raw_images of 2026-11-06 first"):
        Counted().step()(context, date(2026, 11, 6))


def test_a_damaged_memory_is_no_error(context: StageContext, tmp_path: Path) -> None:
    counted = Counted()
    counted.step()(context, DAY)
    for record in (tmp_path / "store/artifacts/made/validated_manifest" / DAY.isoformat()).glob("*.json"):
        record.write_bytes(b"{")
    again = counted.step()(context, DAY)
    assert counted.calls == 2
    assert again.metadata["reused"] is False


texts = st.dictionaries(st.text("ab.", min_size=1, max_size=4), st.text("01", max_size=2), max_size=3)


@given(first=st.tuples(texts, texts, texts, texts), second=st.tuples(texts, texts, texts, texts))
def test_keys_are_equal_exactly_when_all_parts_are(first: tuple[dict[str, str], ...], second: tuple[dict[str, str], ...]) -> None:
    one, two = Recipe("a", None, *first), Recipe("a", None, *second)
    assert (one.key == two.key) == (first == second)
    assert Recipe("b", None, *first).key != one.key != Recipe("a", "2026-11-05", *first).key
