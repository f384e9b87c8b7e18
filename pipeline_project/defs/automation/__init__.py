"""What runs by itself, why, and what happens when it fails."""

from pipeline_project.defs.automation.failures import FAILURE_SENSORS
from pipeline_project.defs.automation.jobs import JOBS as JOBS
from pipeline_project.defs.automation.schedules import SCHEDULES as SCHEDULES
from pipeline_project.defs.automation.sensors import SENSORS as ASKING_SENSORS

SENSORS = [*ASKING_SENSORS, *FAILURE_SENSORS]
