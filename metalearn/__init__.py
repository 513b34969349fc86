"""metalearn: gradient-based meta-learning in JAX, where every algorithm reads like its paper.

meta_gradient = maml(loss, optax.sgd(0.01), num_steps=1)
learner = meta_learner(meta_gradient, optax.adam(1e-3))
result = fit(learner, params, tasks.Sinusoid(), num_steps=10_000, meta_batch_size=25, key=jax.random.key(0))
"""

from metalearn import evaluate, inner, losses, models, outer, plots, tasks, theory
from metalearn.fit import DivergedError, fit
from metalearn.learner import MetaInfo, MetaLearner, MetaState, meta_learner
from metalearn.meta_gradients import fo_b_maml, fo_b_maml_limit, fo_maml, imaml, maml, reptile
from metalearn.task import Task

__all__ = [
    "DivergedError",
    "MetaInfo",
    "MetaLearner",
    "MetaState",
    "Task",
    "evaluate",
    "fit",
    "fo_b_maml",
    "fo_b_maml_limit",
    "fo_maml",
    "imaml",
    "inner",
    "losses",
    "maml",
    "meta_learner",
    "models",
    "outer",
    "plots",
    "reptile",
    "tasks",
    "theory",
]
