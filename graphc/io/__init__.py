"""Files: named arrays, graphs, and how both are written and read without trust in what is on the disk."""
