"""opt_einsum: products of several arrays in the cheapest order, by NumPy."""

from __future__ import annotations

import opt_einsum

from . import Case, Inputs, Table, calling

version = lambda: opt_einsum.__version__


def product(inputs: Inputs) -> Case:
    expression = opt_einsum.contract_expression("ij,jk,kl,lm,m->i", *(a.shape for a in inputs.values()), optimize="dp")
    return calling(expression, *inputs.values())


CASES: Table = {
    "product": {"": product},
}
