"""The parts of a matrix product: blocking, the micro-kernel, packing, the epilogue, the loops."""
