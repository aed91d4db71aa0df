"""Settings of all tests."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several workers with a thread pool each are slower than one thread each. Before torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
