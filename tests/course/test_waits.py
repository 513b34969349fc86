"""A wait can be seen: what is done, about how long it takes, and how far it is."""

import re

import pytest

from metalearn.course import bar


def test_a_bar_says_what_is_done_and_how_long_it_takes_before_it_starts(capsys):
    steps = bar(range(20), "tuning", seconds=12)
    assert next(steps) == 0
    assert capsys.readouterr().out.strip().startswith("tuning, about 12 s:   0%")
    assert list(steps) == list(range(1, 20))
    assert "100%" in capsys.readouterr().out


def test_every_item_of_a_slow_work_is_a_tick(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr("tqdm.std.time", lambda: now)
    for item in bar((str(number) for number in range(10)), "slow"):
        now += 1.0
        assert item.isdigit()
    shown = set(re.findall(r"(\d+)%", capsys.readouterr().out))
    assert len(shown) >= 10


@pytest.mark.parametrize(
    ("items", "what", "seconds", "complaint"),
    [
        (range(9), "tuning", None, "items must be at least 10, .* but they are 9"),
        (range(10), " ", None, "what must say"),
        (range(10), 3, None, "what must say"),
        (range(10), "tuning", 0, "seconds must be positive"),
    ],
)
def test_a_bar_that_would_stand_still_is_refused(items, what, seconds, complaint):
    with pytest.raises(ValueError, match=complaint):
        bar(items, what, seconds)
