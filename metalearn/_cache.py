"""Where things are kept that take time to make and can be made again: the lessons' compiled programs."""

from pathlib import Path

import platformdirs


def cache_directory() -> Path:
    """The user's own, as the system has it ($XDG_CACHE_HOME or ~/.cache on Linux). It may not exist yet."""
    return platformdirs.user_cache_path("metalearn", appauthor=False)
