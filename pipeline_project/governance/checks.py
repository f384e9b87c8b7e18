"""Checks of the governance assets: over what was published, so each can be run alone."""

from pipeline_project.governance.chain import walk_chain
from pipeline_project.governance.dossier import champion_of, read_ledger_state
from pipeline_project.serving.documents import newest
from pipeline_project.stage import CheckOutcome, StageContext


def check_chain(context: StageContext) -> list[CheckOutcome]:
    """chain_intact: every link of the published dossier holds now, and it is about what production serves now."""
    artifact = context.artifacts.latest("audit_dossier")
    dossier = artifact.json("dossier.json")
    package = dossier["package"]["digest"]
    document = newest(context.artifacts.bytes, "production")
    serving = champion_of(document) if document else "nothing"
    if serving != package:
        detail = f"The dossier is about package {package[:12]}, production serves {serving[:12]}. Materialize audit_dossier again."
        return [CheckOutcome("chain_intact", False, detail, {"package": package})]
    chain = walk_chain(context, package, since=read_ledger_state(dossier))
    broken = chain.first_broken
    # A link that the dossier names but that is not walked any more has changed its target since.
    walked = {link.digest for link in chain.links}
    gone = next((link for link in dossier["links"] if link["name"] != "audit ledger" and link["digest"] not in walked), None)
    if broken is not None:
        detail = f"The chain breaks at: {broken.name} {broken.digest[:12]}: {broken.problem}"
    elif gone is not None:
        detail = f"The dossier's link {gone['name']} {gone['digest'][:12]} is no longer part of the chain. Materialize audit_dossier again."
    else:
        detail = f"All {len(chain.links)} links hold, from the approval back to the day's inventories."
    return [CheckOutcome("chain_intact", broken is None and gone is None, detail, {"links": len(chain.links), "package": package})]
