"""Speed beside other libraries, on the same machine in the same run.

    python -m benchmarks --peers numpy,jax --only W10,W11 --rounds 6 --json figures.json
"""
