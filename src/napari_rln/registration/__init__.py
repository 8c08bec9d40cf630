"""Registration of one volume onto the grid of another."""
