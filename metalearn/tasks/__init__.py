"""Task distributions: each is called with (key, num_tasks) and returns a batch of tasks."""

from metalearn.tasks.episodes import Episodes
from metalearn.tasks.glyphs import Glyphs
from metalearn.tasks.mnist1d import MNIST1D
from metalearn.tasks.omniglot import Omniglot
from metalearn.tasks.population import ClientData, Clients, IndexedTasks, Population
from metalearn.tasks.quadratic import Quadratic, QuadraticBatch
from metalearn.tasks.sinusoid import Sinusoid

__all__ = [
    "MNIST1D",
    "ClientData",
    "Clients",
    "Episodes",
    "Glyphs",
    "IndexedTasks",
    "Omniglot",
    "Population",
    "Quadratic",
    "QuadraticBatch",
    "Sinusoid",
]
