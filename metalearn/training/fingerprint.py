"""Fingerprints of arrays and of traced programs: equal in every process, different as soon as a number differs."""

import hashlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal


def of_arrays(*trees: Any) -> str:
    """SHA-256 of the numbers in the trees. Arrays of which other processes hold a part are left out."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(trees):
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
            digest.update(bytes_of(leaf))
    return digest.hexdigest()


def of_program(program: ClosedJaxpr) -> str:
    """SHA-256 of what a traced program computes: operations, numbers in them, and the content of captured arrays.

    Names of variables and functions, and addresses in memory, do not count.
    """
    return _described(program, {})


def same(a: ClosedJaxpr, b: ClosedJaxpr) -> bool:
    """Whether two traced programs compute the same; an array that both captured is not read."""
    return (
        _described(a.jaxpr, {}) == _described(b.jaxpr, {})
        and len(a.consts) == len(b.consts)
        and all(x is y or np.array_equal(bytes_of(x), bytes_of(y)) for x, y in zip(a.consts, b.consts, strict=True))
    )


def bytes_of(array: Any) -> Any:
    """The bytes of an array or a random key, as a flat array of uint8."""
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _described(value: Any, known: dict[int, str]) -> str:
    """A text that is the same for equal values in every process; `known` holds the programs described before."""
    match value:
        case ClosedJaxpr():
            return _hash(_described(value.jaxpr, known), *(_described(const, known) for const in value.consts))
        case Jaxpr():
            if id(value) not in known:
                known[id(value)] = _program(value, known)
            return known[id(value)]
        case jax.Array() | np.ndarray() | np.generic():
            return f"{value.dtype}{np.shape(value)}{_hash(bytes_of(value))}"
        case dict():
            return _described(sorted((str(key), _described(item, known)) for key, item in value.items()), known)
        case set() | frozenset():
            return _described(sorted(_described(item, known) for item in value), known)
        case list() | tuple():
            return f"({', '.join(_described(item, known) for item in value)})"
        case _ if hasattr(value, "__qualname__"):
            return f"{type(value).__name__} {value.__qualname__}"
    return re.sub(r"0x[0-9a-fA-F]+", "", repr(value))


def _program(jaxpr: Jaxpr, known: dict[int, str]) -> str:
    numbers: dict[Any, int] = {}

    def atom(variable):
        if isinstance(variable, Literal):
            return f"{variable.aval} {_described(np.asarray(variable.val), known)}"
        return f"{numbers.setdefault(variable, len(numbers))}:{variable.aval}"

    def atoms(variables):
        return " ".join(map(atom, variables))

    lines = [atoms(jaxpr.constvars), atoms(jaxpr.invars)]
    for equation in jaxpr.eqns:
        parameters = {name: value for name, value in equation.params.items() if name != "name"}
        lines += [
            f"{atoms(equation.outvars)} = {equation.primitive.name} {atoms(equation.invars)}",
            _described(parameters, known),
        ]
    return _hash(*lines, atoms(jaxpr.outvars))


def _hash(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\n" if isinstance(part, str) else part)
    return digest.hexdigest()
