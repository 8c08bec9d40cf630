"""Set before torch starts its threads."""

import os

# Threads that wait by spinning take a hundred times as long where other processes run beside.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
