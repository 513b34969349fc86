"""Links that open the lessons elsewhere, and the cell that installs the course on Colab and does nothing elsewhere."""

import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from metalearn.course import __main__ as command
from metalearn.course import syllabus
from metalearn.course.publishing import badges, builder, page

GITHUB, GITLAB, OTHER = "https://github.com/o/n", "https://gitlab.com/group/part/n", "https://git.example.edu/o/n"
LESSONS = ("00_start_here", "02_maml")
SOURCE = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A lesson

# %%
1 + 1
"""
# Stands in for pip: says what it was asked for.
PIP = 'import sys\nprint("pip:", *sys.argv[1:])\n'
RUN = """
import sys, types
from IPython.core.interactiveshell import InteractiveShell
if "colab" in sys.argv:
    sys.modules["google.colab"] = types.ModuleType("google.colab")
if "missing" in sys.argv:
    sys.modules["metalearn"] = None
InteractiveShell.instance().run_cell(sys.stdin.read()).raise_error()
"""


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://github.com/o/n", GITHUB),
        ("https://github.com/o/n.git", GITHUB),
        ("https://github.com/o/n/", GITHUB),
        ("http://github.com/o/n", GITHUB),
        ("github.com/o/n", GITHUB),
        ("git@github.com:o/n.git", GITHUB),
        ("ssh://git@github.com/o/n.git", GITHUB),
        ("https://token@github.com/o/n", GITHUB),
        ("git@gitlab.com:group/part/n.git", GITLAB),
        ("https://git.example.edu:8443/o/n.git", "https://git.example.edu:8443/o/n"),
        ("https://github.com/o.o/n.github.io", "https://github.com/o.o/n.github.io"),
    ],
)
def test_every_way_to_write_an_address_gives_the_same(url, address):
    assert badges.web_address(url) == address


@pytest.mark.parametrize(
    "url", ["", "o/n", "https://github.com", "https://github.com/o", "https://github.com/o/n/tree/main", "a b.c/d/e"]
)
def test_what_is_no_address_is_refused_with_an_example(url):
    with pytest.raises(ValueError, match="https://HOST/OWNER/NAME"):
        badges.web_address(url)


@pytest.mark.parametrize(
    ("repository", "provider"),
    [
        (GITHUB, "gh/o/n"),
        (GITLAB, "gl/group%2Fpart%2Fn"),
        (OTHER, "git/https%3A%2F%2Fgit.example.edu%2Fo%2Fn"),
    ],
)
def test_binder_opens_the_lesson(repository, provider):
    address = badges.binder(repository, "main", "02_maml")
    assert address == f"https://mybinder.org/v2/{provider}/main?urlpath=lab/tree/lessons/02_maml.ipynb"


def test_colab_opens_the_lesson_from_github_only():
    assert badges.colab(GITHUB, "b", "02_maml") == (
        "https://colab.research.google.com/github/o/n/blob/b/lessons/02_maml.ipynb"
    )
    assert badges.colab(GITLAB, "b", "02_maml") is badges.colab(OTHER, "b", "02_maml") is None


def test_nbgitpuller_copies_the_repository_and_opens_the_lesson():
    address = urlsplit(badges.nbgitpuller(GITHUB, "feature/x", "02_maml", "https://hub.example.edu/"))
    assert (address.netloc, address.path) == ("hub.example.edu", "/hub/user-redirect/git-pull")
    assert parse_qs(address.query) == {
        "repo": [GITHUB],
        "branch": ["feature/x"],
        "urlpath": ["lab/tree/n/lessons/02_maml.ipynb"],
    }


def test_the_table_has_a_link_of_each_kind_for_each_lesson():
    text = badges.markdown(GITHUB, "main", LESSONS)
    for lesson in LESSONS:
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {lesson} ")]
        assert badges.binder(GITHUB, "main", lesson) in row
        assert badges.colab(GITHUB, "main", lesson) in row
        assert badges.nbgitpuller(GITHUB, "main", lesson, badges.HUB) in row
    assert "badge_logo.svg" in text and "colab-badge.svg" in text
    elsewhere = badges.markdown(GITLAB, "main", LESSONS)
    assert "colab.research" not in elsewhere and "from GitHub only" in elsewhere


@pytest.fixture
def root(tmp_path):
    """A course of one lesson, published nowhere."""
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions/02_toy.py").write_text(SOURCE)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "toy"\n')
    return tmp_path


def publish(root, url=GITHUB):
    (root / "pyproject.toml").write_text(f'[project.urls]\nRepository = "{url}"\n')


def first_code_cell(root):
    lesson = nbformat.read(root / "lessons/02_toy.ipynb", as_version=4)
    return next(cell.source for cell in lesson.cells if cell.cell_type == "code")


def test_lessons_install_the_course_only_where_it_is_published(root):
    builder.build(root, run=False)
    assert first_code_cell(root) == "1 + 1"
    publish(root, "git@github.com:o/n.git")
    assert any("lessons/02_toy.ipynb" in complaint for complaint in builder.check(root))
    builder.build(root, run=False)
    assert first_code_cell(root) == badges.install_cell(GITHUB)
    assert not any("lessons/02_toy.ipynb" in complaint for complaint in builder.check(root))


@pytest.mark.parametrize("place", ["colab", "elsewhere"])
@pytest.mark.parametrize("package", ["missing", "installed"])
def test_the_cell_installs_what_is_missing_on_colab_and_does_nothing_elsewhere(place, package, tmp_path):
    (tmp_path / "pip.py").write_text(PIP)
    ran = subprocess.run(
        [sys.executable, "-c", RUN, place, package],
        input=badges.install_cell(GITHUB),
        env={"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    if (place, package) == ("colab", "missing"):
        assert f"pip: install --quiet metalearn-course @ git+{GITHUB} anywidget markdown-it-py" in ran.stdout
    else:
        assert ran.stdout == ""


def test_the_command_prints_the_links_and_says_what_is_left_to_do(root, capsys):
    assert command.main(["badge", "--root", str(root), "--repo", f"{GITHUB}.git", "--branch", "b"]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == badges.markdown(GITHUB, "b", ["02_toy"])
    assert f'Repository = "{GITHUB}"' in err and "build --no-execute" in err

    publish(root)
    assert command.main(["badge", "--root", str(root)]) == 0  # the address is in pyproject.toml
    out, err = capsys.readouterr()
    assert badges.binder(GITHUB, "main", "02_toy") in out
    assert "build --no-execute" not in err

    command.main(["badge", "--root", str(root), "--repo", GITLAB])
    assert "GitHub only" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--repo", "nonsense"]])
def test_the_command_asks_for_an_address(root, capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        command.main(["badge", "--root", str(root), *arguments])
    assert stopped.value.code == 2
    assert "repo" in capsys.readouterr().err


def test_write_puts_links_on_top_of_lessons_and_without_an_address_there_are_none(tmp_path, monkeypatch):
    top = page.opening(syllabus.LESSONS[2], "**Afterwards you can**\n\n- **do** it\n")
    notebook = new_notebook(cells=[new_markdown_cell(top), new_markdown_cell("text")])
    assert builder.to_lesson(notebook, "02_maml").cells[0].source == top
    source = builder.to_lesson(notebook, "02_maml", GITHUB).cells[0].source
    links = [badges.binder(GITHUB, "main", "02_maml"), badges.colab(GITHUB, "main", "02_maml")]
    assert all(f"]({link}) · " in source for link in links) and source.endswith(top[top.index("[Contents]") :])
    assert "Colab" not in builder.to_lesson(notebook, "02_maml", OTHER).cells[0].source


@pytest.mark.parametrize(
    "before", ["", '[project.urls]\nPaper = "https://a.org"\n', f'[project.urls]\nRepository = "{OTHER}"\n']
)
def test_where_the_course_is_published_is_written_once(tmp_path, before):
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "a"\n{before}[tool.b]\nc = 1\n')
    badges.publish(tmp_path, GITHUB)
    badges.publish(tmp_path, GITHUB)
    text = (tmp_path / "pyproject.toml").read_text()
    assert badges.published(tmp_path) == GITHUB and text.count("Repository") == 1 and "c = 1" in text


@pytest.mark.parametrize("url", [GITHUB, OTHER])
def test_what_write_writes_remove_takes_out_again(root, url):
    readme, project = "# A course\n\nOf lessons.\n", (root / "pyproject.toml").read_text()
    (root / "README.md").write_text(readme)
    (root / "CITATION.cff").write_text("authors:\n  - name: A\n")
    for _ in range(2):
        assert command.main(["badge", "--root", str(root), "--repo", url, "--write"]) == 0
        assert (root / "README.md").read_text().split("\n")[1:4] == ["", badges.logos(url, "main", "00_start_here"), ""]
        assert badges.published(root) == url and first_code_cell(root) == badges.install_cell(url)
        assert (root / "CITATION.cff").read_text() == f'authors:\n  - name: A\nrepository-code: "{url}"\n'
    assert command.main(["badge", "--root", str(root), "--remove"]) == 0
    assert (root / "README.md").read_text() == readme
    assert (root / "CITATION.cff").read_text() == "authors:\n  - name: A\n"
    assert (root / "pyproject.toml").read_text() == project
    assert first_code_cell(root) == "1 + 1"
    with pytest.raises(SystemExit):
        command.main(["badge", "--root", str(root), "--remove", "--write"])


def test_what_is_there_beside_the_address_is_left(root):
    text = '[project]\nname = "toy"\n\n[project.urls]\nPaper = "https://a.org"\n'
    (root / "pyproject.toml").write_text(text)
    badges.publish(root, GITHUB)
    badges.unpublish(root)
    assert (root / "pyproject.toml").read_text() == text
    (root / "pyproject.toml").write_text("[project.urls]\nRepository = 'https://github.com/o/n'\n")
    with pytest.raises(ValueError, match="take it out yourself"):
        badges.unpublish(root)
