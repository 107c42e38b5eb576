"""Quotients as two vertices, so that an order may share the division.

    y = a / b    edges a -> y of 1/b, b -> y of -(y * 1/b)    ->    a -> w of 1, b -> w of -y, w -> y of 1/b

since y*b = a gives dy = (da - y*db) / b.  Eliminating w first gives the two edges back, so no Jacobian is lost; the
other orders divide once what comes from a and from b, or what goes there.
"""

from __future__ import annotations

from dataclasses import replace

from .expressions import ONE, Expressions
from .graph import dag_of
from .linearise import Linear, kind_of

Label = dict[int, int]


def with_quotients(linear: Linear) -> Linear | None:
    """The linearised graph with every quotient of two variables split; None where there is none."""
    expressions = linear.expressions
    labels: list[Label] = []
    number: dict[int, int] = {}
    for v, label in enumerate(linear.labels):
        moved = {number[i]: value for i, value in label.items()}
        parts = split(expressions, moved)
        if parts is not None:
            reciprocal, above = parts
            labels.append(above)
            moved = {len(labels) - 1: reciprocal}
        number[v] = len(labels)
        labels.append(moved)
    if len(labels) == len(linear.labels):
        return None
    rows = tuple(None if row is None else number[row] for row in linear.rows)
    columns = tuple(number[column] for column in linear.columns)
    edges = [(i, j, kind_of(expressions, value)) for j, label in enumerate(labels) for i, value in label.items()]
    dag = dag_of(len(labels), edges, columns, [row for row in rows if row is not None])
    return replace(linear, dag=dag, labels=tuple(labels), rows=rows, columns=columns)


def split(expressions: Expressions, label: Label) -> tuple[int, Label] | None:
    """1/b and the edges into w, where these are the edges into a quotient."""
    if len(label) != 2:
        return None
    for a, b in (tuple(label), tuple(label)[::-1]):
        reciprocal, other = label[a], label[b]
        op, operands = expressions.rows[reciprocal >> 1]
        factors = expressions.rows[other >> 1]
        if op == "div" and operands[0] == ONE and factors[0] == "mul" and reciprocal & -2 in factors[1]:
            first, second = factors[1]
            y = second if first == reciprocal & -2 else first
            return reciprocal & -2, {a: ONE ^ (reciprocal & 1), b: y ^ (other & 1)}
    return None
