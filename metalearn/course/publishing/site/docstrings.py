"""From the library's docstrings, which are plain text, to reStructuredText with typeset equations.

    phi_{k+1} = phi_k - a grad h(phi_k)        becomes        \\phi_{k+1} = \\phi_k - a \\nabla h(\\phi_k)

An indented block is an equation, unless it is Python, a shell command or a picture.
"""

import ast
import re
from collections import Counter
from itertools import groupby

GREEK = {"theta": "θ", "phi": "φ"}
WIDTH = 90  # characters of an equation that fit on the page
NAMES = {
    **{name: rf"\{name} " for name in (*GREEK, "exp", "log", "ln", "cos", "sum")},
    "argmin": r"\operatorname{argmin}",
    "grad": r"\nabla ",
    "hess": r"\nabla^2 ",
    "eps": r"\varepsilon ",
    "o": r"\circ ",
}
SIGNS = {
    "||": r"\|",
    "<-": r"\leftarrow ",
    "<=": r"\le ",
    " < ": "<",
    "<": r"\langle ",
    ">": r"\rangle ",
    "~": r"\approx ",
    "...": r"\dots ",
    "(.": r"(\cdot ",
    "*": "^*",
    ": ": r"\text{: }",
}
SYMBOLS = NAMES | SIGNS

# What a line is made of, but for single letters, numbers and signs that LaTeX writes alike. Operators have arguments:
# "max u", but not "the max". A word has two letters; "n-subsets" and "three_point" are words, "du" of du/dt is none.
_NAME = rf"(?:{'|'.join(NAMES)})(?![A-Za-z])"
_SIGN = "|".join(map(re.escape, SIGNS))
_OPERATOR = r"(?:min|max|mean|std|round|sign)(?=[_(]|\ [a-z]\b)"
_WORD = rf"(?!{_NAME}|{_OPERATOR}|d[a-z]\b)(?:[A-Za-z]{{2,}}(?:[-'][a-z]+|_[a-z]{{3,}})*|[a-z]-[a-z]{{2,}})"
_TOKEN = re.compile(
    rf"""
      (?P<script>[_^])(?:\{{(?P<braced>[^}}]*)\}}|\((?P<bracketed>(?:[^()]|\([^()]*\))*)\)|(?P<bare>-?[A-Za-z0-9]+))
    | (?P<operator>{_OPERATOR})
    | (?P<symbol>{_NAME}|{_SIGN})
    | (?P<words>\ ?(?:a\ )?{_WORD}(?:\ (?:a\ )?{_WORD})*(?:\ (?!\ ))?|^I$)
    | (?P<gap>\ {{2,}})
    """,
    re.VERBOSE,
)
_PICTURE_OR_SHELL = re.compile(r'["#]')  # in no equation
_SECTION = re.compile(r"(Args|Attributes|Returns|Raises):$")
_CODE = re.compile(r"(`+[^`]*`+|^\s*\*\*\w+:|https?://\S+)")


def to_rst(lines: list[str]) -> list[str]:
    """A docstring, sections in Google's style included."""
    rst: list[str] = []
    in_section = False
    for indented, group in groupby(lines, lambda line: line[:1] in ("", " ")):
        block = list(group)
        if not indented:
            in_section = bool(_SECTION.match(block[-1]))
        if not indented or in_section or block[0] or not any(block):  # without a blank line above, a list goes on
            rst += [line if line.startswith(">>>") else _prose(line) for line in block]
        else:
            for blank, part in groupby(block, lambda line: not line):
                rst += [""] if blank else _block(list(part))
    return rst


def to_latex(lines: list[str]) -> str:
    """An equation; its lines are aligned at the stops of a table, where columns begin in several of them."""
    if len(lines) == 1 and len(re.sub(r"\s{3,}", "  ", lines[0])) > WIDTH:
        lines = re.split(r"\s{3,}", lines[0])
    if len(lines) == 1:
        return _line(lines[0])
    stops = _stops(lines)
    body = " \\\\\n".join(" & ".join(_cells(line, stops)) for line in lines)
    return f"\\begin{{array}}{{{'l' * len(stops)}}}\n{body}\n\\end{{array}}"


def _block(lines: list[str]) -> list[str]:
    margin = min(len(line) - len(line.lstrip()) for line in lines)
    lines = [line[margin:] for line in lines]
    if _is_python(lines):
        directive, body = ".. code-block:: python", lines
    elif _PICTURE_OR_SHELL.search("".join(lines)):
        directive, body = ".. code-block:: text", lines
    else:
        directive, body = ".. math::", to_latex(lines).splitlines()
    return [directive, "", *(f"   {line}" for line in body), ""]


def _is_python(lines: list[str]) -> bool:
    try:
        ast.parse("\n".join(lines))
    except SyntaxError:
        return False
    return True


def _gaps(line: str) -> set[int]:
    """Where text begins after a gap."""
    return {match.end() for match in re.finditer(r"(?<=\S)\s{2,}|^\s*", line)}


def _starts(line: str) -> set[int]:
    """Where a cell of this line may begin: after a gap, or at a relation."""
    return {0} | _gaps(line) | {match.start() for match in re.finditer(r"(?<= )(?:=|~|<-)(?= )", line)}


def _stops(lines: list[str]) -> list[int]:
    """Where cells begin in several lines, in one of them after a gap."""
    counts = Counter(start for line in lines for start in _starts(line))
    return sorted({0} | {gap for line in lines for gap in _gaps(line) if counts[gap] > 1})


def _cells(line: str, stops: list[int]) -> list[str]:
    """The cells of a line in LaTeX, one for each stop."""
    used = [stop for stop in stops if stop in _starts(line)]
    ends = dict(zip(used, [*used[1:], None], strict=True))
    cells = []
    for stop, following in zip(stops, [*stops[1:], None], strict=True):
        text = line[stop : ends[stop]].rstrip() if stop in ends else ""
        cell = _line(text.lstrip())
        if text[:1] == " ":
            cell = rf"\hspace{{{len(text) - len(text.lstrip())}ex}}{cell}"
        if text and ends[stop] != following:  # longer than its column, which it must not widen
            cell = rf"\rlap{{{cell}}}"
        cells.append(cell)
    return cells


def _line(text: str) -> str:
    return _TOKEN.sub(_replace, text)


def _replace(match: re.Match[str]) -> str:
    text = match[0]
    if match["script"]:
        return f"{match['script']}{{{_script(match)}}}"
    if match["operator"]:
        return rf"\operatorname{{{text}}}"
    if match["symbol"]:
        return SYMBOLS[text]
    if match["words"]:
        after_sign = match.string[: match.start()].endswith(("=", "+"))
        return rf"\text{{{text.lstrip() if after_sign else text}}}"
    return r"\;\;" if len(text) == 2 else r"\quad "


def _script(match: re.Match[str]) -> str:
    if match["bare"]:
        return SYMBOLS.get(match["bare"], match["bare"])
    return _line(match["braced"] or match["bracketed"])


def _prose(line: str) -> str:
    """Escapes what reStructuredText would take for markup, and writes Greek letters; leaves `code` alone."""
    parts = _CODE.split(line)
    for i in range(0, len(parts), 2):
        text = re.sub(r"(?<![A-Za-z])(theta|phi)(?![a-z])", lambda name: GREEK[name[0]], parts[i])
        text = re.sub(
            r"(?<![A-Za-z])(grad|hess)(_\w+)? (?=[\w\[])",
            lambda m: f"{'∇' if m[1] == 'grad' else '∇²'}{f'{m[2]} ' if m[2] else ''}",
            text,
        )
        for ascii_sign, sign in (("<-", "←"), ("<=", "≤"), (">=", "≥")):
            text = text.replace(ascii_sign, sign)
        parts[i] = re.sub(r"([\\*|]|_(?!\w))", r"\\\1", text)
    return "".join(parts)
