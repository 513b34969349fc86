"""The decision guide: it is up to date, every number of it comes from a record, and it is linked from every lesson."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from metalearn.course import syllabus
from metalearn.course.lessons import project
from metalearn.course.publishing import builder, guide, page

ROOT = Path(__file__).parents[2]
HERE = ROOT / "lessons" / page.GUIDE


def test_it_is_up_to_date():
    assert builder.pages(ROOT)[HERE] == guide.guide() == HERE.read_text("utf-8")


def test_it_is_linked_from_the_contents_and_from_the_end_of_every_lesson():
    assert f"]({page.GUIDE})" in page.contents()
    assert all(f"]({page.GUIDE})" in page.closing(lesson) for lesson in syllabus.LESSONS)


def test_every_section_has_a_table_and_names_its_lesson():
    first, *sections = guide.guide().split("\n## ")
    short, *answers = sections
    assert short.startswith("In short") and "lesson" in first
    for section in answers:
        assert "| --- |" in section and re.search(r"\[lesson \d\d\]", section), section[:40]


def test_a_table_has_as_many_cells_in_every_row():
    for table in re.findall(r"(?:^\|.*\n)+", guide.guide(), flags=re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1


@pytest.fixture
def records(monkeypatch):
    """The records, to change; the guide reads these."""
    held = {path.stem: json.loads(path.read_text("utf-8")) for path in project.RECORD.parent.glob("*.json")}
    monkeypatch.setattr(guide, "_record", held.__getitem__)
    monkeypatch.setattr(project, "recorded", lambda: held["project"])
    return held


def test_another_record_changes_the_numbers(records):
    before = guide.guide()
    records["comparison"]["memory_bytes"]["FO-MAML"] = [1_000.0] * 5
    after = guide.guide()
    assert before != after and "| 1 kB | 1 kB | 1 kB |" in after


def test_a_sentence_that_is_no_longer_true_stops_the_build(records):
    errors = records["project"]["control"]["errors"]
    errors["MAML"] = list(np.array(errors["MAML"]) + 1)
    with pytest.raises(ValueError, match="does not agree with the records"):
        guide.guide()
