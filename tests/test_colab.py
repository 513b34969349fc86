"""The first lesson on a copy of Colab: its published versions, its name for itself, and the cell that installs.

What this cannot try is Colab's own page. The versions are those of Colab's runtime 2026.01, as Google publishes them;
they are for Python 3.12, but exist for that of this environment as well.
"""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from metalearn.course.publishing import badges

ROOT = Path(__file__).parents[1]
ADDRESS = "https://github.com/owner/name"
COLAB = [
    "anywidget==0.9.21",
    "flax==0.11.2",
    "ipykernel==6.17.1",
    "ipython==7.34.0",
    "ipywidgets==7.7.1",
    "jax==0.7.2",
    "jaxlib==0.7.2",
    "jupyter_client==7.4.9",
    "jupyterlab_widgets==3.0.16",
    "markdown-it-py==4.0.0",
    "matplotlib==3.10.0",
    "ml_dtypes==0.5.4",
    "nbclient==0.10.4",
    "nbformat==5.10.4",
    "notebook==6.5.7",
    "numpy==2.0.2",
    "optax==0.2.6",
    "orbax-checkpoint==0.11.31",
    "pandas==2.2.2",
    "pillow==11.3.0",
    "pip==24.1.2",
    "platformdirs==4.5.1",
    "protobuf==5.29.5",
    "psutil==5.9.5",
    "pyzmq==26.2.1",
    "scipy==1.16.3",
    "setuptools==75.2.0",
    "tensorstore==0.1.80",
    "tornado==6.5.1",
    "tqdm==4.67.1",
    "traitlets==5.7.1",
    "widgetsnbextension==3.6.10",
]
# Colab's kernel has loaded NumPy and pandas before a learner's first cell, so that it could not take another version.
PRELUDE = """
import sys, types, numpy, pandas
colab, output = types.ModuleType("google.colab"), types.ModuleType("google.colab.output")
output.enable_custom_widget_manager = lambda: print("Colab's widget manager is on")
output._widgets = types.SimpleNamespace(_installed_url="https://example.org/manager.js")
google = types.ModuleType("google")
google.colab, colab.output, google.__path__, colab.__path__ = colab, output, [], []
sys.modules |= {"google": google, "google.colab": colab, "google.colab.output": output}
"""
RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_first_lesson_installs_the_course_and_runs_with_colabs_versions(tmp_path):
    python = tmp_path / "colab/bin/python"
    subprocess.run(["uv", "venv", "--quiet", "--seed", "--python", sys.executable, tmp_path / "colab"], check=True)
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", python, *COLAB], check=True)
    fork = tmp_path / "fork"  # git takes what is here in place of what is at the address
    subprocess.run(["git", "clone", "--quiet", ROOT, fork], check=True)
    (tmp_path / ".gitconfig").write_text(f'[url "file://{fork}"]\n\tinsteadOf = {ADDRESS}\n[safe]\n\tdirectory = *\n')

    lesson = nbformat.read(ROOT / "lessons/00_start_here.ipynb", as_version=4)
    lesson.cells = [cell for cell in lesson.cells if cell.cell_type == "code"]
    lesson.cells[:0] = map(nbformat.v4.new_code_cell, (PRELUDE, badges.install_cell(ADDRESS)))
    lesson.cells.append(nbformat.v4.new_code_cell("print(jax.__version__, np.__version__, ml.__file__)"))
    path = tmp_path / "lesson.ipynb"
    nbformat.write(lesson, path)
    private = {"HOME": str(tmp_path), "PATH": f"{python.parent}:{os.environ['PATH']}"}
    subprocess.run([python, "-c", RUN, path], env=private, cwd=tmp_path, check=True)

    ran = nbformat.read(path, as_version=4).cells
    texts = "".join(output.get("text", "") for cell in ran for output in cell.outputs)
    jax, numpy, file = ran[-1].outputs[0].text.split()
    assert jax.startswith("0.10.") and numpy == "2.0.2" and Path(file).is_relative_to(tmp_path / "colab")
    assert "ERROR" not in texts and texts.count("Colab's widget manager is on") == 1
    # Each widget stands behind a picture or a sentence, for a page on which no manager draws it.
    shown = [output.data for cell in ran for output in cell.outputs if output.output_type == "display_data"]
    widgets = [i for i, data in enumerate(shown) if "application/vnd.jupyter.widget-view+json" in data]
    assert len(widgets) > 5 and all("metalearn-asleep" in shown[i - 1]["text/html"] for i in widgets)
    assert any("<svg" in shown[i - 1]["text/html"] for i in widgets)
