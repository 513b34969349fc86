"""Links that open the lessons elsewhere, on Binder, Colab or a JupyterHub: `python -m metalearn.course badge`.

Where the course is published is said once, in pyproject.toml:

    [project.urls]
    Repository = "https://github.com/OWNER/NAME"

which `badge --repo URL --write` does, and `badge --remove` takes back. Lessons that are built then lead to Binder and
Colab in the strip on their top, and have a first code cell that installs the course on Colab, and does nothing
elsewhere; README.md has both badges below its title.
"""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, urlencode

from metalearn.course import syllabus

BINDER, COLAB = "https://mybinder.org", "https://colab.research.google.com"
HUB = "https://HUB.EXAMPLE.ORG"

_ADDRESS = re.compile(
    r"(?:https?://|ssh://)?(?:[\w.-]+@)?(?P<host>[\w-]+(?:\.[\w-]+)+(?::\d+)?)[:/](?P<path>[\w.-]+(?:/[\w.-]+)+)/?"
)


def web_address(url: str) -> str:
    """The repository's address as https://HOST/OWNER/NAME, from that or from the form git@HOST:OWNER/NAME.git.

    Raises:
      ValueError: if it is neither.
    """
    match = _ADDRESS.fullmatch(url.strip())
    path = match["path"].removesuffix(".git") if match else ""
    if match is None or (match["host"] == "github.com" and path.count("/") != 1):
        raise ValueError(f"the repository must look like https://HOST/OWNER/NAME or git@HOST:OWNER/NAME, not {url!r}")
    return f"https://{match['host']}/{path}"


def published(root: Path) -> str | None:
    """The web address of the course that pyproject.toml gives, or None if it gives none.

    Raises:
      ValueError: if it is no address of a repository.
    """
    path = root / "pyproject.toml"
    urls = tomllib.loads(path.read_text("utf-8")).get("project", {}).get("urls", {}) if path.exists() else {}
    return web_address(urls["Repository"]) if "Repository" in urls else None


def publish(root: Path, repository: str) -> None:
    """Writes into pyproject.toml and CITATION.cff where the course is published, and into README.md its badges."""
    path = root / "pyproject.toml"
    line, text = f'Repository = "{repository}"', path.read_text("utf-8")
    if published(root):
        text = _LINE.sub(f"{line}\n", text)
    elif "[project.urls]" in text:
        text = text.replace("[project.urls]\n", f"[project.urls]\n{line}\n", 1)
    else:  # the tables of pyproject.toml may stand in any order
        text = f"{text.rstrip()}\n\n[project.urls]\n{line}\n"
    _write(path, text, repository)
    _write_badges(root, logos(repository, "main", syllabus.LESSONS[0].stem))
    _cite(root, f'repository-code: "{repository}"\n')


def unpublish(root: Path) -> None:
    """Takes back what `publish` wrote."""
    path = root / "pyproject.toml"
    text = _LINE.sub("", path.read_text("utf-8"))
    _write(path, re.sub(r"\n+\[project\.urls\]\n*\Z", "\n", text), None)
    _write_badges(root, "")
    _cite(root, "")


_LINE = re.compile(r'^Repository = ".*"\n', re.MULTILINE)


def _write(path: Path, text: str, repository: str | None) -> None:
    try:
        written = tomllib.loads(text).get("project", {}).get("urls", {}).get("Repository")
    except tomllib.TOMLDecodeError:
        written = ""
    if written != repository:
        raise ValueError(
            "pyproject.toml gives Repository in a form that is not replaced: "
            + (f'write Repository = "{repository}" there yourself' if repository else "take it out yourself")
        )
    path.write_text(text, "utf-8")


def _write_badges(root: Path, badges: str) -> None:
    """Below the title of README.md, in place of those that are there."""
    path = root / "README.md"
    if path.exists():
        text = re.sub(r"^\[!\[Open on Binder\].*\n\n?", "", path.read_text("utf-8"), flags=re.MULTILINE)
        path.write_text(re.sub(r"\A(# .*\n)\n?", rf"\1\n{badges}\n\n", text) if badges else text, "utf-8")


def _cite(root: Path, line: str) -> None:
    """At the end of CITATION.cff, in place of the line that is there."""
    path = root / "CITATION.cff"
    if path.exists():
        path.write_text(
            re.sub(r"^repository-code:.*\n", "", path.read_text("utf-8"), flags=re.MULTILINE) + line, "utf-8"
        )


def install_cell(repository: str) -> str:
    """The code that installs the course where it is missing and the machine is Colab's.

    Colab has its own page and kernel, which the extra `course` would replace while they run.
    """
    return f"""\
# Google Colab lacks the course and installs it here; elsewhere this cell does nothing.
import importlib.util
import sys

if "google.colab" in sys.modules and importlib.util.find_spec("metalearn") is None:
    %pip install --quiet "metalearn-course @ git+{repository}" anywidget markdown-it-py"""


def binder(repository: str, branch: str, lesson: str) -> str:
    """The address that starts the course on Binder and opens one lesson."""
    host, _, path = repository.removeprefix("https://").partition("/")
    provider = {
        "github.com": f"gh/{path}",
        "gitlab.com": f"gl/{quote(path, safe='')}",
    }.get(host, f"git/{quote(repository, safe='')}")
    return f"{BINDER}/v2/{provider}/{quote(branch)}?urlpath=lab/tree/lessons/{lesson}.ipynb"


def colab(repository: str, branch: str, lesson: str) -> str | None:
    """The address that opens one lesson on Colab, which reads from GitHub only; elsewhere None."""
    path = repository.removeprefix("https://github.com/")
    return f"{COLAB}/github/{path}/blob/{quote(branch)}/lessons/{lesson}.ipynb" if path != repository else None


def nbgitpuller(repository: str, branch: str, lesson: str, hub: str) -> str:
    """The address that copies the course into a learner's home on a JupyterHub and opens one lesson."""
    folder = repository.rpartition("/")[2]
    query = {"repo": repository, "branch": branch, "urlpath": f"lab/tree/{folder}/lessons/{lesson}.ipynb"}
    return f"{hub.rstrip('/')}/hub/user-redirect/git-pull?{urlencode(query)}"


def logos(repository: str, branch: str, lesson: str) -> str:
    """Badges that open one lesson, a line of Markdown."""
    line = f"[![Open on Binder]({BINDER}/badge_logo.svg)]({binder(repository, branch, lesson)})"
    if on_colab := colab(repository, branch, lesson):
        line += f" [![Open in Colab]({COLAB}/assets/colab-badge.svg)]({on_colab})"
    return line


def markdown(repository: str, branch: str, lessons: Sequence[str], hub: str = HUB) -> str:
    """Badges that open the first lesson, and a table of links to each."""
    rows = ["| lesson | Binder | Colab | JupyterHub |", "|---|---|---|---|"]
    for lesson in lessons:
        on_colab = colab(repository, branch, lesson)
        cells = [
            lesson,
            f"[Binder]({binder(repository, branch, lesson)})",
            f"[Colab]({on_colab})" if on_colab else "from GitHub only",
            f"[hub]({nbgitpuller(repository, branch, lesson, hub)})",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([logos(repository, branch, lessons[0]), "", *rows])


def notes(repository: str, root: Path) -> list[str]:
    """What the links need before they work, a line each."""
    needed = [
        f'A JupyterHub needs nbgitpuller and this course: pip install "metalearn-course[course] @ git+{repository}"'
    ]
    if colab(repository, "", "") is None:
        needed.append("Colab opens notebooks from GitHub only, so there is no link to it.")
    elif published(root) != repository:
        needed.append(
            f'For Colab, set Repository = "{repository}" under [project.urls] in pyproject.toml and run '
            "`python -m metalearn.course build --no-execute`, or add --write to this command, which does both: each "
            "lesson then has the links on its top, and installs the course on Colab."
        )
    return needed
