"""What every lesson has in common: its top, its bottom, and the page of contents. All of it comes from `syllabus`.

It is plain Markdown with a little HTML, so that it is there before anything has run: in JupyterLab, which lets such
HTML through in a notebook that it does not trust, on Colab, on a repository's preview and on the website. Where styles
are removed, the parts stand below each other.
"""

import base64
import functools
import html
import importlib
import io
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from metalearn import plots
from metalearn.course import lessons, syllabus
from metalearn.course.syllabus import Lesson
from metalearn.course.widgets import diagrams

PICTURES = "opening-left.png", "opening-right.png"  # the names of the attachments
PICTURE_WIDTH = 1000  # pixels of each, for screens that show two in place of one
CONTENTS, NOTATION, SOURCES, GUIDE = "contents.md", "notation.md", "sources.md", "decision_guide.md"
_LAST = (
    "This is the last lesson. You can now read the papers in which these methods were published. If you write a "
    "meta-gradient of your own, `ml.testing.check_meta_gradient` says whether it can take the place of the library's."
)
OBJECTIVES, SYMBOLS = "**Afterwards you can**", "**New symbols**"

_LIST = r"(?:(?:- |  ).+\n?)+"  # items, and the lines on which they go on
_OPENING = re.compile(
    rf"{re.escape(OBJECTIVES)}\n\n(?P<objectives>{_LIST})(?:\n{re.escape(SYMBOLS)}\n\n(?P<symbols>{_LIST}))?"
)


def opening(lesson: Lesson, source: str) -> str:
    """The first cell that a learner sees.

    Args:
      lesson: its line in the table of the course.
      source: what the author writes: `**Afterwards you can**` above a list, and `**New symbols**` above another one,
        which may be missing.

    Raises:
      ValueError: if `source` is something else.
    """
    match = _OPENING.fullmatch(source.strip())
    if match is None:
        raise ValueError(
            f"the opening must be {OBJECTIVES!r} above a list, and, if there are new symbols, {SYMBOLS!r} above another"
        )
    drawn = draws(lesson.number)
    parts = [
        _right(" · ".join([f"[Contents]({CONTENTS})", f"[Notation]({NOTATION})", *_neighbours(lesson)])),
        f"**{syllabus.COURSE}** · {lesson.number} of {syllabus.LESSONS[-1].number} · {lesson.kind} · "
        f"{lesson.minutes} minutes",
        f"# {lesson.number} · {lesson.title}",
        f'<div style="font-size: 1.15em; opacity: 0.85">\n\n{lesson.claim}\n\n</div>',
        *([pictures_block(lesson.number)] if drawn else []),
    ]
    objectives = f"{OBJECTIVES}\n\n{match['objectives'].strip()}"
    if match["symbols"]:
        symbols = f"{SYMBOLS}\n\n{match['symbols'].strip()}"
        parts.append(f"{_BOX}\n\n{symbols}\n\n</div>\n\n{objectives}")
    else:
        parts.append(objectives)
    parts.append(f'<div style="clear: both">\n\n{_prerequisites(lesson)}\n\n</div>')
    return "\n\n".join(parts)


def closing(lesson: Lesson) -> str:
    """The last cell: where to go on."""
    following = _at(lesson, +1)
    onward = f"Next: {_link(following)}. {following.claim}" if following else _LAST
    return f"---\n\n{onward}\n\n" + " · ".join(
        [
            f"[Contents]({CONTENTS})",
            f"[Notation]({NOTATION})",
            f"[Which meta-gradient?]({GUIDE})",
            *([] if following else [f"[Sources]({SOURCES})"]),
            *_neighbours(lesson),
        ]
    )


def course_map(folder: str = "") -> str:
    """The lessons as a table in Markdown; its links lead into a folder, such as "lessons/"."""
    lines = ["| lesson | | what you will have shown |", "|---|---|---|"]
    part = None
    for lesson in syllabus.LESSONS:
        if lesson.part != part:
            part = lesson.part
            lines.append(f"| **{part}** | | |")
        link = f"[{lesson.number} · {lesson.name}]({folder}{lesson.stem}.ipynb)"
        lines.append(f"| {link} | {lesson.kind}, {lesson.minutes} min | {lesson.claim} |")
    return "\n".join(lines)


def course_cards(folder: str = "") -> str:
    """The lessons as cards in HTML, each with the left half of its picture; for the website."""
    cards: list[str] = []
    for lesson in syllabus.LESSONS:
        draw = draws(lesson.number)
        drawn = _without_heading(draw()[0]) if draw else ""
        cards.append(
            f'<a href="{folder}{lesson.stem}.html">{drawn}<strong>{lesson.number} · {html.escape(lesson.name)}</strong>'
            f"<span>{html.escape(lesson.part)} · {lesson.kind}, {lesson.minutes} min</span>"
            f"{html.escape(lesson.claim)}</a>"
        )
    return f'<div class="ml-map">{"".join(cards)}</div>'


def opening_card(number: str) -> str:
    """The picture of a lesson as a card that follows the page's theme, its halves below one another on a phone."""
    draw = draws(number)
    assert draw is not None
    return plots.card(f'<div class="ml-panels">{"".join(draw())}</div>')


def _without_heading(element: str) -> str:
    """Half of the picture of a lesson, without its title and caption, hidden from screen readers."""
    start = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" aria-hidden="true" '
    return f'{start}width="500" height="254" viewBox="0 46 500 254">{element[element.index(">") + 1 :]}'


def pictures_block(number: str) -> str:
    """Both halves of the picture of a lesson, in Markdown: beside one another, or below where there is little room."""
    draw = draws(number)
    assert draw is not None
    halves = [
        f"{_HALF}\n\n![{described}](attachment:{name})\n\n</div>"
        for described, name in zip(_described(draw), PICTURES, strict=True)
    ]
    return '<div style="text-align: center">\n\n' + "\n\n".join(halves) + "\n\n</div>"


def contents() -> str:
    """The page of contents, in Markdown; its links lead to notebooks in the same folder."""
    minutes = sum(lesson.minutes for lesson in syllabus.LESSONS if lesson.core)
    return (
        f"# Contents\n\n{course_map()}\n\nThe core path takes about {round(minutes / 60)} hours. "
        f"[Notation]({NOTATION}) has every symbol of the course, and a glossary; [Sources]({SOURCES}) has the papers. "
        f"[Which meta-gradient?]({GUIDE}) is a guide from all measurements of the course. "
        "What you have done so far is shown by `progress()` in any lesson.\n"
    )


def written(name: str) -> str:
    """A page that is written by hand: NOTATION, the symbols and words, or SOURCES, the papers."""
    return Path(__file__).with_name("site").joinpath(name).read_text("utf-8")


def draws(number: str) -> Callable[[], tuple[str, str]] | None:
    """The function that draws the picture of a lesson, `opening` in its module; None if there is none."""
    name = f"{lessons.__name__}.lesson_{number}"
    return getattr(importlib.import_module(name), "opening", None) if find_spec(name) else None


def pictures(number: str) -> dict[str, dict[str, str]]:
    """The halves of the picture of a lesson on light cards, as attachments of a cell: PNG in base64.

    Raises:
      ModuleNotFoundError: if resvg-py, which draws it, is not installed.
    """
    draw = draws(number)
    assert draw is not None
    return {name: {"image/png": _png(half)} for name, half in zip(PICTURES, draw(), strict=True)}


def _png(element: str) -> str:
    try:
        import resvg_py
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "The picture of a lesson is drawn by resvg-py, from the dependency group `dev`: run `uv sync`, or "
            "`pip install --group dev`."
        ) from None
    import matplotlib
    from PIL import Image

    fonts = Path(matplotlib.get_data_path(), "fonts/ttf")  # the same on every machine
    drawn = resvg_py.svg_to_bytes(
        svg_string=diagrams.standalone(element),
        width=PICTURE_WIDTH,
        skip_system_fonts=True,
        font_dirs=[str(fonts)],
        font_family="DejaVu Sans",
        sans_serif_family="DejaVu Sans",
        serif_family="DejaVu Serif",
        monospace_family="DejaVu Sans Mono",
    )
    small = io.BytesIO()
    Image.open(io.BytesIO(bytes(drawn))).quantize(128).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode() + "\n"


@functools.cache
def _described(draw: Callable[[], tuple[str, str]]) -> list[str]:
    """The alternative texts of both halves of a picture, which are their own.

    Raises:
      ValueError: if one has none.
    """
    found = [re.search(r'^<svg [^>]*aria-label="([^"]+)"', half) for half in draw()]
    if not all(label and not set(label[1]) & set("[]") for label in found):
        raise ValueError(f"{draw.__module__}.opening needs pictures with alternative text, without brackets")
    return [html.unescape(label[1]) for label in found if label]


_HALF = '<div class="ml-opening" style="display: inline-block; width: 49%; min-width: 430px">'
_BOX = (
    '<div style="float: right; width: 34%; margin: 0 0 1em 1.5em; padding: 0.5em 1em; border: 1px solid rgba(128, 128, '
    '128, 0.4); border-radius: 10px">'
)


def _right(text: str) -> str:
    return f'<div style="float: right">\n\n{text}\n\n</div>'


def with_links(opening: str, links: Mapping[str, str | None]) -> str:
    """The first cell with links before those of its strip: words, since a picture from elsewhere may not come."""
    told = " · ".join(f"[{name}]({address})" for name, address in links.items() if address)
    start = _right("").removesuffix("\n\n</div>")
    return opening.replace(start, f"{start}{told} · ", 1) if opening.startswith(start) else opening


def _prerequisites(lesson: Lesson) -> str:
    before = [_link(needed) for number in lesson.needs if (needed := syllabus.find(number))]
    if not before:
        return "Before this: calculus, linear algebra, and Python with NumPy. You need no JAX and no meta-learning."
    return f"Before this: {' and '.join(before)}."


def _neighbours(lesson: Lesson) -> list[str]:
    before, after = _at(lesson, -1), _at(lesson, +1)
    return [
        *([f"[← {before.number}]({before.stem}.ipynb)"] if before else []),
        *([f"[{after.number} →]({after.stem}.ipynb)"] if after else []),
    ]


def _at(lesson: Lesson, distance: int) -> Lesson | None:
    """The lesson so far behind this one, if there is one."""
    place = syllabus.LESSONS.index(lesson) + distance
    return syllabus.LESSONS[place] if 0 <= place < len(syllabus.LESSONS) else None


def _link(lesson: Lesson) -> str:
    return f"[{lesson.number} · {lesson.name}]({lesson.stem}.ipynb)"
