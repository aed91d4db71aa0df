"""Layer 3: the Trainer, its arguments, adapters, checkpoints and callbacks."""

from vividmed.training.adapters.bitsandbytes_import import import_bitsandbytes

import_bitsandbytes()
