"""The napari plugin: the only part that may import napari and Qt."""

import os

# As in the command line: threads of torch that wait actively block the window. It counts only if
# set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
