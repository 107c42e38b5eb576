"""Inverse kinematics of a robot arm with six joints by Newton's method with an exact Jacobian.

    python examples/robot_arm.py

The arm is that of the benchmark RobotArm_6DOF, its lengths in millimetres; the pose is the tool's position and three
angles.
"""

from __future__ import annotations

import numpy as np

import graphc as gc

A1, A2, A3, D1, D4, D6 = 175.0, 890.0, 50.0, 575.0, 1035.0, 185.0


def pose(joints: list[gc.Node]) -> list[gc.Node]:
    """Position of the tool and the three angles of its orientation, from the angles of the joints."""
    (c1, c2, c3, c4, c5, c6), (s1, s2, s3, s4, s5, s6) = [gc.cos(t) for t in joints], [gc.sin(t) for t in joints]
    c23, s23 = c2 * c3 - s2 * s3, c2 * s3 + s2 * c3
    ax = s5 * (c1 * c23 * c4 + s1 * s4) + c1 * s23 * c5
    ay = s5 * (s1 * c23 * c4 - c1 * s4) + s1 * s23 * c5
    az = s23 * c4 * s5 - c23 * c5
    nz = c6 * (c23 * s5 + s23 * c4 * c5) - s23 * s4 * s6
    oz = -s6 * (c23 * s5 + s23 * c4 * c5) - s23 * s4 * c6
    reach = A1 + A2 * c2 + A3 * c23 + D4 * s23
    return [D6 * ax + c1 * reach, D6 * ay + s1 * reach, A2 * s2 + D1 + A3 * s23 - D4 * c23 + D6 * az,
            gc.arctan2(ay, ax), gc.arctan2(gc.sqrt(1.0 - az * az), az), gc.arctan2(oz, -nz)]


def solve(target: np.ndarray, start: np.ndarray, both: gc.Function) -> tuple[np.ndarray, int]:
    """Newton's method with halved steps where a full one leads away; returns joints and the number of steps."""
    joints = start.copy()
    for step in range(1, 101):
        found, jacobian = both(joints)
        gap = target - found
        if np.abs(gap).max() < 1e-10:
            return joints, step
        move, size = np.linalg.solve(jacobian, gap), 1.0
        while np.abs(target - both(joints + size * move)[0]).max() > np.abs(gap).max() and size > 1e-3:
            size /= 2
        joints = joints + size * move
    raise RuntimeError("Newton's method did not converge")


def main() -> float:
    """Solves for a pose that the arm can reach; returns the largest error of the pose."""
    wanted = np.array([0.4, 0.6, -0.3, 0.5, 0.9, -0.2])
    with gc.Graph(), gc.Session() as sess:
        q = gc.placeholder("float64", (6,), name="q")
        where = gc.stack(pose([q[k] for k in range(6)]))
        both = sess.function([q], [where, gc.jacobian(where, q)])
        target = both(wanted)[0]
        joints, steps = solve(target, wanted + 0.15, both)
        error = float(np.abs(both(joints)[0] - target).max())
    print(f"joints {np.round(joints, 6)} after {steps} steps; largest error of the pose {error:.1e}")
    return error


if __name__ == "__main__":
    main()
