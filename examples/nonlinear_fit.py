"""Fits a model to measured data with SciPy's least_squares and an exact Jacobian; the answer is certified by NIST.

    python examples/nonlinear_fit.py

Data: Misra1a of the NIST Statistical Reference Datasets (nonlinear regression, lower difficulty), 14 measurements of
dental research on monomolecular adsorption; model y = b1 (1 - exp(-b2 x)).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares

import graphc as gc

X = [77.6, 114.9, 141.1, 190.8, 239.9, 289.0, 332.8, 378.4, 434.8, 477.3, 536.8, 593.1, 689.1, 760.0]
Y = [10.07, 14.73, 17.94, 23.93, 29.61, 35.18, 40.02, 44.82, 50.76, 55.05, 61.01, 66.40, 75.47, 81.78]
CERTIFIED = (2.3894212918e02, 5.5015643181e-04)
START = (500.0, 1e-4)  # the harder of NIST's two


def main() -> np.ndarray:
    """Fits and compares; returns the parameters."""
    with gc.Graph():
        b = gc.placeholder("float64", (2,), name="b")
        x, y = gc.constant(X), gc.constant(Y)
        residuals = b[0] * (1.0 - gc.exp(-b[1] * x)) - y
        with gc.Session() as sess:
            f = sess.function([b], residuals)
            jacobian = sess.function([b], gc.jacobian(residuals, b))
            found = least_squares(f, START, jac=jacobian, x_scale=START, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    for name, value, certified in zip(("b1", "b2"), found.x, CERTIFIED):
        print(f"{name} = {value:.10e}   certified {certified:.10e}")
    print(f"residual sum of squares {2 * found.cost:.10e} after {found.nfev} evaluations, {found.njev} Jacobians")
    return np.asarray(found.x)


if __name__ == "__main__":
    main()
