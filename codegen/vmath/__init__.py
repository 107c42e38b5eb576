"""Elementary and special functions as inlined polynomials: one code path for every lane, no table look-up, no call."""
