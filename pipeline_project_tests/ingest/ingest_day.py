"""A program: ingest one day of the project that the environment names, `python ingest_day.py DAY`; prints how many images it decoded."""

import json
import sys
from datetime import date

from pipeline_project.ingest.features import measure_images
from pipeline_project.ingest.inventory import take_inventory
from pipeline_project.ingest.manifest import validate_images
from pipeline_project.ingest.pack import pack_images
from pipeline_project.settings import load_settings
from pipeline_project.stage import StageContext


def main(day: date) -> None:
    context = StageContext.open(load_settings("sample"))
    results = [step(context, day) for step in (take_inventory, validate_images, pack_images, measure_images)]
    sys.stdout.write(json.dumps({"decoded": results[1].metadata.get("decoded")}) + "\n")


if __name__ == "__main__":
    main(date.fromisoformat(sys.argv[1]))
