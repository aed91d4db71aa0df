"""Train a stage of VividMed.

    accelerate launch stages/train.py --stage vlm
    accelerate launch stages/train.py --stage vlm --config stages/configs/vlm.yaml --model_name_or_path FOLDER \
        --dataset_name FOLDER_OR_HUB_ID
    accelerate launch --config_file stages/accelerate/fsdp2.yaml stages/train.py --stage vlm --config FILE

With only --stage it trains a tiny model on the embedded sample data, on a CPU, in minutes; with --model_name_or_path it
starts from that model. Arguments come from the YAML file or the command line, which wins; --help lists them all. See docs/training.md.
"""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # found from a clone, whatever the working folder

from vividmed.console import run_command
from vividmed.orphans import end_with_launcher
from vividmed.threads import wait_without_spinning

if __name__ == "__main__":
    end_with_launcher()
    wait_without_spinning()

    # Imports that take seconds, in which the launcher may already end.
    from vividmed.training.launching import start_processes
    from vividmed.training.stages.command import main

    start_processes([__file__], sys.argv[1:])
    sys.exit(run_command(lambda: main(sys.argv[1:])))
