"""The order in which the linear maps of a derivative are multiplied: found by search on prices, before anything is
built."""
