"""metalearn: gradient-based meta-learning in JAX, where every algorithm reads like its paper.

meta_gradient = maml(loss, optax.sgd(0.01), num_steps=1)
learner = meta_learner(meta_gradient, optax.adam(1e-3))
result = fit(learner, params, tasks.Sinusoid(), num_steps=10_000, meta_batch_size=25, key=jax.random.key(0))
"""

from metalearn import (
    evaluate,
    inner,
    kernel,
    losses,
    models,
    outer,
    plots,
    repurpose,
    task_weights,
    tasks,
    theory,
    two_tower,
)
from metalearn._checkpoints import CheckpointError
from metalearn.fit import DivergedError, fit
from metalearn.learner import MetaInfo, MetaLearner, MetaState, meta_learner
from metalearn.mamf import among_present, mamf, tasks_to_cover, uniform_tasks
from metalearn.meta_gradients import (
    a_maml,
    fo_b_maml,
    fo_b_maml_limit,
    fo_maml,
    fo_muml,
    gradient_flow,
    hf_maml,
    imaml,
    kernel_adaptation,
    maml,
    meta_rkhs_i,
    meta_rkhs_ii,
    reptile,
    zero_head,
    zeroing_trick,
)
from metalearn.moml import MOMLState, local_moml, moml
from metalearn.task import Task

__all__ = [
    "CheckpointError",
    "DivergedError",
    "MOMLState",
    "MetaInfo",
    "MetaLearner",
    "MetaState",
    "Task",
    "a_maml",
    "among_present",
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
    "tasks_to_cover",
    "theory",
    "two_tower",
    "uniform_tasks",
    "zero_head",
    "zeroing_trick",
]
