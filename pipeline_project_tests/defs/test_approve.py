"""The job `approve`, as the launchpad starts it: it does what the command does, and refuses what must not count."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from pipeline_project.definitions import defs
from pipeline_project.defs.governance.approve import ApprovalKinds
from pipeline_project.defs.resources import project_settings
from pipeline_project.governance import ledger
from pipeline_project.stage import StageContext
from pipeline_project.trust.approvals import KINDS, ApprovalRequiredError, find_approval, require_unchanged
from pipeline_project.trust.signing import load_or_create_key

KIND = "data_source_modifications"


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StageContext]:
    """The project that the code location reads, in a home of its own."""
    monkeypatch.setenv("PIPELINE_HOME", str(tmp_path / "home"))
    project_settings.cache_clear()
    found = StageContext.open(project_settings())
    load_or_create_key(found.settings.home / "keys" / "ada.pem", found.settings.trusted_approvers)
    yield found
    project_settings.cache_clear()


@pytest.fixture
def refused(context: StageContext) -> ApprovalRequiredError:
    """What a step said that met a changed source."""
    use(context, "one")
    with pytest.raises(ApprovalRequiredError) as caught:
        use(context, "two")
    return caught.value


def use(context: StageContext, source: str) -> None:
    require_unchanged(context.artifacts.bytes, context.settings.trusted_approvers, KIND, {"source": source}, "The data source")


def launch(config: dict[str, Any]) -> tuple[dg.ExecuteInProcessResult, str]:
    """Run the job; the result, and why it failed."""
    job = defs().resolve_job_def("approve")
    with dg.DagsterInstance.ephemeral() as instance:
        done = job.execute_in_process(run_config=config, instance=instance, raise_on_error=False)
    failures = [event.step_failure_data.error.message for event in done.all_events if event.is_step_failure]  # type: ignore[union-attr]
    assert not any(event.is_step_up_for_retry for event in done.all_events)
    return done, "\n".join(failures)


def pasted(refused: ApprovalRequiredError, **changes: str) -> dict[str, Any]:
    """The configuration that the refusal shows, with a name and a reason filled in."""
    [line] = [line for line in str(refused).splitlines() if line.strip().startswith("ops:")]
    config: dict[str, Any] = yaml.safe_load(line)
    config["ops"]["sign_approval"]["config"] |= {"approver": "ada", "reason": "the shop moved", **changes}
    return config


def test_what_the_refusal_shows_approves_the_change(context: StageContext, refused: ApprovalRequiredError) -> None:
    done, failure = launch(pasted(refused))
    assert done.success, failure
    given = find_approval(context.artifacts.bytes, context.settings.trusted_approvers, KIND, refused.subject)
    assert given is not None
    assert (given.approval.approver, given.approval.reason) == ("ada", "the shop moved")
    [entry] = ledger.entries(context.artifacts.bytes)
    assert (entry.actor, entry.action, entry.subject) == ("ada", "approved", refused.subject)
    assert entry.details["dagster_run_id"] == done.run_id
    assert entry.details["key_id"] == given.signature.key_id
    [output] = [event.step_output_data for event in done.all_events if event.is_successful_output]
    shown = {name: value.value for name, value in output.metadata.items()}
    assert shown["approved"] == {"source": "two"}, "the approver sees what the digest stands for"
    assert (shown["kind"], shown["subject"], shown["key_id"]) == (KIND, refused.subject, given.signature.key_id)
    use(context, "two")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"approver": "bob"}, "There is no key of bob in"),
        ({"approver": "../keys/ada"}, "is not a name of a key"),
        ({"approver": "/etc/passwd"}, "is not a name of a key"),
        ({"approver": ""}, "is not a name of a key"),
        ({"subject": "abc"}, "copy all 64 hexadecimal digits"),
        ({"subject": "../" + "a" * 61}, "copy all 64 hexadecimal digits"),
        ({"subject": "0" * 64}, "Nothing asked for data_source_modifications of 000000000000"),
        ({"kind": "production_deployment"}, "Nothing asked for production_deployment"),
        ({"reason": "  "}, "Say why"),
        ({"reason": "x" * 2001}, "Say why"),
    ],
)
def test_what_cannot_be_right_approves_nothing(
    context: StageContext, refused: ApprovalRequiredError, changes: dict[str, str], words: str
) -> None:
    done, failure = launch(pasted(refused, **changes))
    assert not done.success
    assert words in failure
    store = context.artifacts.bytes
    assert find_approval(store, context.settings.trusted_approvers, KIND, refused.subject) is None
    assert list(ledger.entries(store)) == []


def test_an_unknown_approver_is_told_how_to_make_a_key(refused: ApprovalRequiredError) -> None:
    _, failure = launch(pasted(refused, approver="bob"))
    assert "Make one with `pipeline keys create bob`" in failure


def test_a_key_that_nobody_trusts_does_not_count(context: StageContext, refused: ApprovalRequiredError) -> None:
    load_or_create_key(context.settings.home / "keys" / "eve.pem")
    _, failure = launch(pasted(refused, approver="eve"))
    assert "its public half is not in" in failure
    (context.settings.home / "keys" / "eve.pem").write_bytes((context.settings.home / "keys" / "ada.pem").read_bytes())
    _, failure = launch(pasted(refused, approver="eve"))
    assert "it is trusted as the key of ada" in failure, "nobody approves under another's name"
    assert list(ledger.entries(context.artifacts.bytes)) == []


def test_the_launchpad_offers_the_kinds_and_explains_every_field() -> None:
    assert [kind.value for kind in ApprovalKinds] == [kind.name for kind in ApprovalKinds]
    assert {kind.value for kind in ApprovalKinds} == set(KINDS)
    node = defs().resolve_job_def("approve").graph.node_named("sign_approval")
    fields = node.definition.config_schema.config_type.fields  # type: ignore[union-attr]
    assert set(fields) == {"kind", "subject", "approver", "reason"}
    assert all(field.description and field.is_required for field in fields.values())
    assert {value.config_value for value in fields["kind"].config_type.enum_values} == set(KINDS)


def test_a_wrong_kind_is_refused_before_a_run_starts(refused: ApprovalRequiredError) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError):
        launch(pasted(refused, kind="everything"))
