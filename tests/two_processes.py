"""One process of two: `python two_processes.py INDEX PORT DIRECTORY` trains and prints the outcome, for test_mesh."""

import argparse
import json

import jax

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("index", type=int)
parser.add_argument("port")
parser.add_argument("directory")
options = parser.parse_args()
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.config.update("jax_disable_most_optimizations", True)
jax.distributed.initialize(f"localhost:{options.port}", num_processes=2, process_id=options.index)

import test_mesh  # noqa: E402

mesh = jax.make_mesh((2,), ("tasks",))
assert jax.process_count() == jax.device_count() == 2
test_mesh.fit(8, mesh=mesh, checkpoint_dir=options.directory)
result = test_mesh.fit(20, mesh=mesh, checkpoint_dir=options.directory)
print(json.dumps([jax.numpy.ravel(leaf).tolist() for leaf in jax.tree.leaves(result.params)]))
