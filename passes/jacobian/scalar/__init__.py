"""Jacobians of scalar code by elimination of vertices.

    graph, reductions, subset_dp, heuristics, search    orders on integer graphs: nothing here knows of nodes
    linearise, quotients, expressions, accumulate, factors
                                                        partial derivatives as expressions; what an order makes of them
    expand, build, candidate                            tensors as scalars, expressions as nodes; the whole as a call
"""
