"""Logistic regression by SciPy's trust-region Newton method with Hessian-vector products, and by Newton's own.

    python examples/logistic_regression.py

Data: the 569 tumours of the Wisconsin diagnostic breast cancer set that comes with scikit-learn, 30 features each.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from sklearn.datasets import load_breast_cancer

import graphc as gc

PENALTY = 1e-2


def data() -> tuple[np.ndarray, np.ndarray]:
    """Standardised features with a column of ones, and labels 0 or 1."""
    cancer = load_breast_cancer()
    features = (cancer.data - cancer.data.mean(axis=0)) / cancer.data.std(axis=0)
    return np.hstack([features, np.ones((len(features), 1))]), cancer.target.astype(float)


def objective(features: np.ndarray, labels: np.ndarray) -> tuple[gc.Node, gc.Node]:
    """The weights and the mean penalised loss."""
    w = gc.placeholder("float64", (features.shape[1],), name="w")
    scores = gc.constant(features) @ w
    return w, gc.nn.sigmoid_cross_entropy(scores, gc.constant(labels)).mean() + PENALTY / 2 * (w * w).sum()


def newton(gradient: gc.Node, w: gc.Node, hessian: gc.Node, sess: gc.Session) -> tuple[np.ndarray, int]:
    """Newton's method from zero; returns the weights and how many steps it took."""
    both = sess.function([w], [gradient, hessian])
    point = np.zeros(w.shape)
    for k in range(1, 51):
        g, h = both(point)
        if np.abs(g).max() < 1e-12:
            return point, k
        point = point - np.linalg.solve(h, g)
    raise RuntimeError("Newton's method did not converge")


def main() -> tuple[np.ndarray, np.ndarray]:
    """Minimises in both ways; returns both answers."""
    features, labels = data()
    with gc.Graph(), gc.Session() as sess:
        w, loss = objective(features, labels)
        v = gc.placeholder("float64", w.shape, name="v")
        gradient, product = gc.gradients(loss, w), gc.hvp(loss, w, v)
        f, g, hvp = sess.function([w], loss), sess.function([w], gradient), sess.function([w, v], product)
        found = minimize(f, np.zeros(w.shape), jac=g, hessp=hvp, method="trust-ncg", options={"gtol": 1e-10})
        exact, steps = newton(gradient, w, gc.hessian(loss, w), sess)
    accuracy = float(((features @ exact > 0) == labels).mean())
    print(f"trust-ncg: loss {found.fun:.12f} after {found.nit} iterations, {found.nhev} Hessian-vector products")
    gap = np.abs(found.x - exact).max()
    print(f"Newton:    the same minimum to {gap:.1e} in {steps} steps; accuracy {accuracy:.4f}")
    return found.x, exact


if __name__ == "__main__":
    main()
