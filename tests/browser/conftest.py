"""Fixtures of the tests in a browser."""

import functools

import pytest


@pytest.fixture(scope="session")
def browser_page(tmp_path_factory):
    """A page of Chromium with a fresh profile."""
    for needed in ("playwright", "axe_playwright_python"):
        pytest.importorskip(needed, reason=f"{needed} is not installed (uv sync installs it)")
    import lab

    with lab.open_browser(tmp_path_factory.mktemp("profile")) as page:
        if page is None:
            pytest.skip("no Chromium found: install Debian's chromium package to run this test")
        yield page


@pytest.fixture
def open_lab(browser_page, tmp_path):
    """Starts JupyterLab on a copy of a folder; a context manager that gives a `Lab`."""
    import lab

    return functools.partial(lab.open_lab, browser_page, scratch=tmp_path)
