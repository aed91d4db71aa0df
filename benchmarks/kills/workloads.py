"""What is killed: small runs of training, preparation and upload that resume when they are started again."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml
from safetensors.torch import load_file

from tests.fixtures.grounded_reports import write_label_maps, write_rows
from tests.fixtures.hub.cards import make_terms
from tests.fixtures.hub.folders import prepare as make_prepared_set
from tests.fixtures.hub.minihub import Hub
from tests.fixtures.preparation import Toy, add_case
from tests.fixtures.training import make_rows, small_model, small_processor
from vividmed.cli.main import main as vividmed
from vividmed.data.preparation.prepare import prepare_dataset
from vividmed.hub.publish import publish_dataset
from vividmed.training.runs.checkpointing import newest_complete_checkpoint
from vividmed.training.stages.command import main

TOKEN, USER = "hf_tester", "tester"
_WITH_TIMES_OR_PATHS = ("metrics.jsonl", "config.yaml", "manifest.json", "loss_curve.png")
_STEPS = ("clean", "tag", "filter", "localize", "rows")
_SETTINGS = {
    "max_steps": 6,
    "max_length": 96,
    "per_device_train_batch_size": 2,
    "learning_rate": 0.01,
    "logging_steps": 1,
    "save_steps": 1,
    "save_total_limit": 2,
    "generation_samples": 1,
    "generation_max_new_tokens": 2,
    "closed_question_samples": 2,
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "resume_from_checkpoint": "auto",
}


@dataclass(frozen=True)
class Workload:
    """A program that can be killed and started again.

    Attributes:
        name: name in the table.
        run: does the work, or what is left of it, in a folder.
        result: digest of each file that the finished work leaves, by name.
        progress: work that must never be lost again, as a number that may only grow.
    """

    name: str
    run: Callable[[Path], None]
    result: Callable[[Path], dict[str, str]]
    progress: Callable[[Path], int]


def prepare_material(folder: Path) -> None:
    """Write the model and data that the workloads start from."""
    processor = small_processor()
    small_model(processor).save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    (folder / "rows").mkdir()
    make_rows(range(12)).to_parquet(folder / "rows" / "train.parquet")
    make_rows(range(20, 24)).to_parquet(folder / "rows" / "test.parquet")
    for number in range(8):
        add_case(folder / "original", f"p{number}_0", seed=number)
    make_prepared_set(folder / "set", shards=8)
    reports = [
        f"Findings: The liver and the left kidney are normal. {n} nodules. No effusion." for n in range(40)
    ]
    write_rows(folder / "reports", reports)
    write_label_maps(folder / "maps", len(reports))


def workloads(material: Path, hub: Hub) -> list[Workload]:
    """All workloads.

    Args:
        material: folder that :func:`prepare_material` filled.
        hub: loopback Hub that uploads go to; the repository is named after the folder of the work.
    """

    def train(folder: Path, **settings: object) -> None:
        values = {
            **_SETTINGS,
            "model_name_or_path": str(material / "model"),
            "dataset_name": str(material / "rows"),
            "output_dir": str(folder / "run"),
            **settings,
        }
        folder.mkdir(exist_ok=True)
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(values))
        if main(["--stage", "vlm", "--config", str(config)]):
            raise SystemExit(1)

    def train_lora(folder: Path) -> None:
        train(folder, use_peft=True, lora_r=4, train_boundary_tokens=True)

    def trained_steps(folder: Path) -> int:
        checkpoint = newest_complete_checkpoint(folder / "run")
        return 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])

    def prepare(folder: Path) -> None:
        prepare_dataset(Toy(), material / "original", folder / "out", shard_bytes=1)

    def finished_cases(folder: Path) -> int:
        return len(list((folder / "out" / "data").glob("*.parquet")))

    def upload(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        publish_dataset(material / "set", f"{USER}/{folder.name}", terms=make_terms())

    def uploaded(folder: Path) -> dict[str, str]:
        return {name: file.sha256 for name, file in hub.files("dataset", f"{USER}/{folder.name}").items()}

    def ground_reports(folder: Path) -> None:
        previous = material / "reports"
        for step in _STEPS:
            command = ["ground-reports", step, "--input", str(previous), "--output", str(folder / step)]
            command += ["--shard-studies", "7"]
            command += ["--masks", str(material / "maps")] if step == "localize" else []
            if vividmed(command):
                raise SystemExit(1)
            previous = folder / step

    def grounded(folder: Path) -> dict[str, str]:
        return {f"{step}/{name}": value for step in _STEPS for name, value in digests(folder / step).items()}

    def finished_shards(folder: Path) -> int:
        return len([*folder.glob("*/studies/*.parquet"), *folder.glob("rows/data/*.parquet")])

    return [
        Workload("training", train, lambda folder: digests(folder / "run"), trained_steps),
        Workload("LoRA training", train_lora, lambda folder: digests(folder / "run"), trained_steps),
        Workload("preparation", prepare, lambda folder: digests(folder / "out"), finished_cases),
        Workload("grounded reports", ground_reports, grounded, finished_shards),
        Workload("upload", upload, uploaded, lambda folder: 0),
    ]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that a finished run leaves at its top level and in its folders of rows.

    Logs with times are left out, as is the configuration, which names the folder. Weights are hashed tensor by tensor.
    """
    found = {}
    for path in sorted([*folder.glob("*"), *folder.glob("data/*"), *folder.glob("studies/*")]):
        if not path.is_file() or path.name.startswith(".") or path.name in _WITH_TIMES_OR_PATHS:
            continue
        digest = hashlib.sha256()
        if path.suffix == ".safetensors":
            for name, tensor in sorted(load_file(path).items()):
                digest.update(name.encode() + tensor.numpy().tobytes())
        else:
            digest.update(path.read_bytes())
        found[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return found
