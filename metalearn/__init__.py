"""metalearn: gradient-based meta-learning in JAX, where every algorithm reads like its paper.

::

    meta_gradient = maml(loss, optax.sgd(0.01), num_steps=1)
    learner = meta_learner(meta_gradient, optax.adam(1e-3))
    result = fit(learner, params, tasks.Sinusoid(), num_steps=10_000, meta_batch_size=25, key=jax.random.key(0))

Everything that is public checks its arguments: what is not as its docstring says raises a ValueError or a TypeError
that names the argument, what came, and what would be right. A docstring has a section "Raises" only for what goes
beyond that.
"""

from importlib.metadata import PackageNotFoundError, version

from metalearn import losses, models, outer, plots, tasks, testing, theory
from metalearn.adaptation import inner, kernel
from metalearn.adaptation.inner import adapt
from metalearn.evaluation import meta_test as evaluate
from metalearn.evaluation import repurpose
from metalearn.learners import task_weights
from metalearn.learners.mamf import mamf
from metalearn.learners.meta_learner import MetaInfo, MetaLearner, MetaState, meta_learner
from metalearn.learners.moml import MOMLState, local_moml, moml
from metalearn.meta_gradients.a_maml import a_maml
from metalearn.meta_gradients.fo_b_maml import fo_b_maml, fo_b_maml_limit
from metalearn.meta_gradients.fo_muml import fo_muml
from metalearn.meta_gradients.hf_maml import hf_maml
from metalearn.meta_gradients.imaml import imaml
from metalearn.meta_gradients.kernel_adaptation import kernel_adaptation
from metalearn.meta_gradients.maml import fo_maml, maml
from metalearn.meta_gradients.meta_rkhs import gradient_flow, meta_rkhs_i, meta_rkhs_ii
from metalearn.meta_gradients.reptile import reptile
from metalearn.meta_gradients.zeroing import zero_head, zeroing_trick
from metalearn.models import two_tower
from metalearn.task import Task
from metalearn.training.checkpoints import CheckpointError
from metalearn.training.fit import DivergedError, fit
from metalearn.training.sources import TasksEndedError

try:
    __version__ = version("metalearn-course")
except PackageNotFoundError:  # the folder is on the path, and was never installed
    __version__ = "0+unknown"

__all__ = [
    "CheckpointError",
    "DivergedError",
    "MOMLState",
    "MetaInfo",
    "MetaLearner",
    "MetaState",
    "Task",
    "TasksEndedError",
    "a_maml",
    "adapt",
    "evaluate",
    "fit",
    "fo_b_maml",
    "fo_b_maml_limit",
    "fo_maml",
    "fo_muml",
    "gradient_flow",
    "hf_maml",
    "imaml",
    "inner",
    "kernel",
    "kernel_adaptation",
    "local_moml",
    "losses",
    "mamf",
    "maml",
    "meta_learner",
    "meta_rkhs_i",
    "meta_rkhs_ii",
    "models",
    "moml",
    "outer",
    "plots",
    "reptile",
    "repurpose",
    "task_weights",
    "tasks",
    "testing",
    "theory",
    "two_tower",
    "zero_head",
    "zeroing_trick",
]
