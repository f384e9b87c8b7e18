"""Which days of the source differ from what was last taken in, found in bounded steps: level-triggered, nothing missed, nothing twice."""

from pipeline_project.ingest.scanning.days import judge_days
from pipeline_project.ingest.scanning.judging import Judge
from pipeline_project.ingest.scanning.scan import ScanLimits, advance, scan_to_end
from pipeline_project.ingest.scanning.state import Change, ScanState, Waiting, scan_identity

__all__ = ["Change", "Judge", "ScanLimits", "ScanState", "Waiting", "advance", "judge_days", "scan_identity", "scan_to_end"]
