"""Evaluate a model: ``vividmed evaluate`` for ``accelerate launch``.

    accelerate launch stages/evaluate.py predict outputs/vlm --task vqa --output predictions/vlm
    python stages/evaluate.py score predictions/vlm --plots --card outputs/vlm

The verbs and their arguments are those of ``vividmed evaluate``. Every process predicts its share of the rows. See
docs/metrics.md.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # found from a clone, whatever the working folder

from vividmed.cli.main import main
from vividmed.orphans import end_with_launcher
from vividmed.training.launching import start_processes

if __name__ == "__main__":
    end_with_launcher()
    start_processes([__file__], sys.argv[1:])
    sys.exit(main(["evaluate", *sys.argv[1:]]))
