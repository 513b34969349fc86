"""One process of two: `python two_processes.py INDEX PORT DIRECTORY` trains and prints the outcome, for test_mesh."""

import json
import sys

import jax

index, port, directory = sys.argv[1:]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.config.update("jax_disable_most_optimizations", True)
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(index))

import test_mesh  # noqa: E402

mesh = jax.make_mesh((2,), ("tasks",))
assert jax.process_count() == jax.device_count() == 2
test_mesh.fit(8, mesh=mesh, checkpoint_dir=directory)
result = test_mesh.fit(20, mesh=mesh, checkpoint_dir=directory)
print(json.dumps([jax.numpy.ravel(leaf).tolist() for leaf in jax.tree.leaves(result.params)]))
