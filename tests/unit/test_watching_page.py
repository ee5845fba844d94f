"""The page on watching names what is counted, and nothing else."""

import re
from pathlib import Path

from modelyard.run.measures import MEASURES
from modelyard.run.metrics import REGISTRY
from modelyard.run.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "watching.md").read_text()
OF_THIS_PROCESS = {"modelyard_database_connections", "modelyard_database_up"}
KINDS = {"counter": "_total", "info": "_info"}


def test_every_metric_is_in_the_table_with_its_labels_and_no_other_is() -> None:
    told = dict(re.findall(r"^\| `([a-z_]+)` \|(.*?)\|", PAGE, re.MULTILINE))
    ours = [family for family in REGISTRY.collect() if not family.name.startswith(("process_", "python_"))]
    counted = {family.name + KINDS.get(family.type, "") for family in ours}

    assert set(told) == counted | {measure.name for measure in MEASURES} | OF_THIS_PROCESS
    for measure in MEASURES:
        assert told[measure.name].strip() == (f"`{measure.label}`" if measure.label else "")


def test_the_setting_is_there() -> None:
    assert "MODELYARD_OTEL__ENDPOINT" in PAGE
    assert set(type(Settings().otel).model_fields) == {"endpoint", "service"}
