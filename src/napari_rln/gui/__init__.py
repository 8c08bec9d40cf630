"""The napari half: the only part that may import napari and Qt."""

import os

# As the command line does: threads of torch that wait by spinning leave the window no time. To be
# said before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
