"""The conformance cases are of the form that runners in all languages rely on."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tests.conformance.play import Play
from tests.conformance.schema import faults
from tests.conftest import ROOT

CONFORMANCE = ROOT / "tests/conformance"
SCHEMA = json.loads((CONFORMANCE / "schema.json").read_text())
FILES = sorted((CONFORMANCE / "cases").glob("*.json"))
VERBS = set(SCHEMA["$defs"]["step"]["properties"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_cases_of_a_file_are_as_the_schema_says(file: Any) -> None:
    assert list(faults(json.loads(file.read_text()), SCHEMA, SCHEMA)) == []


@pytest.mark.parametrize(
    ("step", "path"),
    [
        ({"publish": {}}, "$[0].steps[0].publish"),
        ({"publish": {"events": [{"event_id": 7}]}}, "$[0].steps[0].publish.events[0].event_id"),
        ({"publish": {"events": [{"event_id": "e", "colour": "red"}]}}, "$[0].steps[0].publish.events[0].colour"),
        ({"take": {"from": 1, "events": []}}, "$[0].steps[0].take.from"),
        ({"sing": {}}, "$[0].steps[0].sing"),
        ({}, "$[0].steps[0]"),
        ({"stop": {"who": "c", "how": "fast"}}, "$[0].steps[0].stop.how"),
        ({"redrive": {"group": "g", "redriven": "many"}}, "$[0].steps[0].redrive.redriven"),
    ],
)
def test_a_step_of_another_form_is_found(step: dict[str, Any], path: str) -> None:
    (fault,) = faults([{"name": "n", "description": "d", "steps": [step]}], SCHEMA, SCHEMA)
    assert fault.startswith(path)


def all_cases() -> list[dict[str, Any]]:
    return [case for file in FILES for case in json.loads(file.read_text())]


def test_names_are_unique() -> None:
    assert Counter(case["name"] for case in all_cases()).most_common(1)[0][1] == 1


def test_every_verb_is_used_and_told_in_the_readme() -> None:
    used = {verb for case in all_cases() for step in case["steps"] for verb in step}
    readme = (CONFORMANCE / "README.md").read_text()
    assert used == VERBS
    assert [verb for verb in VERBS if f"`{verb}`" not in readme or not hasattr(Play, verb)] == []


def test_the_cases_that_need_control_say_so() -> None:
    for case in all_cases():
        controlled = any("control" in step for step in case["steps"])
        assert case.get("needs_control", False) == controlled, case["name"]
