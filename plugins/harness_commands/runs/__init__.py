"""`harness runs diff`, `merge`, `card` and `export`: what is done with a run afterwards."""
