"""Runs the common tests of the installed transformers version on VividMed's classes.

    python -m benchmarks.hf_common
    python -m benchmarks.hf_common --tests ~/transformers/tests --only generation

The test files are fetched from the source distribution of that version on the package index and kept in a cache
outside the repository. ``GenerationTesterMixin`` is not part of the source distribution, which carries only the top
level of the ``tests`` folder: ``--tests FOLDER``, the ``tests`` folder of a checkout of the same version, adds it, and
without it the output says that it did not run. Nothing else is fetched: the picture that some tests take from the Hub
is a made-up one. What is left to fail, and why, is written in docs/differences.md.
"""

import argparse
import base64
import importlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import types
import unittest
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from vividmed import VividMedConfig, VividMedForCausalLM, VividMedModel, VividMedProcessor

PACKAGE = "transformers_tests"
MIXINS = ("model", "configuration", "processor", "generation")
# Modules below the top level that the mixins import, with the names they take from them.
ABSENT: dict[str, dict[str, Any]] = {
    "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "utils.test_configuration_utils": {"config_common_kwargs": {}},
}


def fetch_tests(cache: Path) -> Path:
    """The ``tests`` folder of the installed version's source distribution, fetched once.

    Args:
        cache: folder in which it is kept, by version.
    """
    version = transformers.__version__
    target = cache / version / PACKAGE
    if target.is_dir():
        return target
    with tempfile.TemporaryDirectory() as folder:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
        download += ["--no-binary", ":all:", "--dest", folder, f"transformers=={version}"]
        subprocess.run(download, check=True)
        archive = next(Path(folder).glob("*.tar.gz"))
        with tarfile.open(archive) as tar:
            prefix = f"transformers-{version}/tests/"
            tar.extractall(folder, [m for m in tar if m.name.startswith(prefix)], filter="data")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(Path(folder) / f"transformers-{version}" / "tests", target)
    (target / "__init__.py").touch()
    return target


def import_tests(folder: Path) -> bool:
    """Make the test files importable as one package.

    Args:
        folder: a ``tests`` folder.

    Returns:
        Whether the mixin of generation is among them.
    """
    package = types.ModuleType(PACKAGE)
    package.__path__ = [str(folder)]
    sys.modules[PACKAGE] = package
    for name, members in ABSENT.items():
        if (folder / name.replace(".", "/")).with_suffix(".py").is_file():
            continue
        parent, _, _ = name.rpartition(".")
        for full in (f"{PACKAGE}.{parent}", f"{PACKAGE}.{name}"):
            sys.modules.setdefault(full, types.ModuleType(full))
        for member, value in members.items():
            setattr(sys.modules[f"{PACKAGE}.{name}"], member, value)
    # A script of the repository that says where files of the Hub are kept offline.
    sys.modules["fetch_hub_objects_for_ci"] = types.ModuleType("fetch_hub_objects_for_ci")
    sys.modules["fetch_hub_objects_for_ci"].url_to_local_path = made_up  # type: ignore[attr-defined]
    return (folder / "generation" / "test_utils.py").is_file()


def made_up(url: str, *_: object) -> str:
    """Replace the address of a picture by a data URL of noise."""
    if not url.endswith(".png"):
        return url
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


class TinyInputs:
    """What the mixins ask of a model's own tester: a tiny configuration, and a batch with images."""

    batch_size, seq_length, num_image_tokens = 3, 12, 5
    hidden_size, num_hidden_layers, num_attention_heads, vocab_size = 32, 2, 2, 64
    is_training = True

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent

    @staticmethod
    def get_config() -> VividMedConfig:
        return VividMedConfig(
            vision_config={
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "patch_size": (4, 8, 8),
                "position_grid": (2, 3, 3),
            },
            text_config={
                "vocab_size": TinyInputs.vocab_size,
                "hidden_size": TinyInputs.hidden_size,
                "intermediate_size": 48,
                "num_hidden_layers": TinyInputs.num_hidden_layers,
                "num_attention_heads": TinyInputs.num_attention_heads,
            },
            phrase_start_token_id=60,
            phrase_end_token_id=61,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[VividMedConfig, dict[str, Any]]:
        shape = (self.batch_size, self.seq_length)
        types_ = torch.zeros(shape, dtype=torch.long)
        types_[:, 1 : 1 + self.num_image_tokens] = 1
        return self.get_config(), {
            "input_ids": torch.randint(3, 60, shape),
            "attention_mask": torch.ones(shape, dtype=torch.long),
            "token_type_ids": types_,
            # One tensor, because the mixins cut batches by the first dimension of tensors only.
            "pixel_values": torch.rand(self.batch_size, 3, 1, 16, 24),
            "patch_sizes": torch.tensor([[1, 8, 8]] * self.batch_size),
            "pool_sizes": torch.tensor([[1, 2, 1]] * self.batch_size),
        }


def suites(with_generation: bool) -> dict[str, type[unittest.TestCase]]:
    """One test case per mixin."""
    common = importlib.import_module(f"{PACKAGE}.test_modeling_common")
    configuration = importlib.import_module(f"{PACKAGE}.test_configuration_common")
    processing = importlib.import_module(f"{PACKAGE}.test_processing_common")
    # The tests of image arguments need one that turns every value negative; ours has no rescale_factor.
    processing.MODALITY_TEST_SPECS["images"]["init_time_kwargs"] = {"image_mean": (1.0, 1.0, 1.0)}

    class ModelTests(common.ModelTesterMixin, unittest.TestCase):
        all_model_classes = (VividMedModel, VividMedForCausalLM)
        all_generative_model_classes = (VividMedForCausalLM,)
        _is_composite = True
        # Features of images of different sizes have no common shape.
        skip_test_image_features_output_shape = True

        def setUp(self) -> None:
            torch.manual_seed(0)
            self.model_tester = TinyInputs(self)

        def _image_features_prepare_config_and_inputs(self) -> tuple[VividMedConfig, dict[str, Any]]:
            config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            names = ("pixel_values", "patch_sizes", "pool_sizes")
            return config, {name: inputs[name] for name in names}

    class ConfigurationTests(unittest.TestCase):
        model_tester = TinyInputs

        def test_config(self) -> None:
            tester = configuration.ConfigTester(self, config_class=VividMedConfig, has_text_modality=False)
            tester.run_common_tests()

    class ProcessorTests(processing.ProcessorTesterMixin, unittest.TestCase):
        processor_class = VividMedProcessor

        @classmethod
        def _setup_from_components(cls) -> VividMedProcessor:
            return VividMedProcessor.tiny()

        @classmethod
        def setUpClass(cls) -> None:
            cls.tmpdirname = tempfile.mkdtemp()
            cls.full_tmpdirname = None
            processor = VividMedProcessor.tiny()
            cls.image_token = ""
            processor.save_pretrained(cls.tmpdirname)

        def prepare_image_inputs(self, batch_size: int | None = None, nested: bool = False) -> Any:
            images = [
                np.random.default_rng(seed).integers(0, 255, (30, 40), dtype=np.uint8)
                for seed in range(batch_size or 1)
            ]
            if batch_size is None:
                return images[0]
            return [[image] for image in images] if nested else images

    found: dict[str, type[unittest.TestCase]] = {
        "model": ModelTests,
        "configuration": ConfigurationTests,
        "processor": ProcessorTests,
    }
    if with_generation:
        generation = importlib.import_module(f"{PACKAGE}.generation.test_utils")

        class GenerationTests(generation.GenerationTesterMixin, unittest.TestCase):
            all_model_classes = (VividMedModel, VividMedForCausalLM)
            all_generative_model_classes = (VividMedForCausalLM,)

            def setUp(self) -> None:
                torch.manual_seed(0)
                self.model_tester = TinyInputs(self)

        found["generation"] = GenerationTests
    return found


def run(name: str, case: type[unittest.TestCase]) -> Counter[str]:
    """Run one test case and print what fails, with the last line of its reason."""
    result = unittest.TestResult()
    suite = unittest.TestLoader().loadTestsFromTestCase(case)
    suite.run(result)
    failed = {test.id().rpartition(".")[2]: trace for test, trace in result.failures + result.errors}
    for test, trace in sorted(failed.items()):
        reason = [line for line in trace.strip().splitlines() if line.strip()][-1]
        print(f"  failed  {name}.{test}: {reason[:160]}", flush=True)
    skips = len({test.id() for test, _ in result.skipped})
    return Counter(
        passed=result.testsRun - skips - len(failed), skipped=skips, failed=len(failed), run=result.testsRun
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the mixins and print a table; returns the number of failures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    default = Path.home() / ".cache" / "vividmed" / "hf_common"
    parser.add_argument("--cache", type=Path, default=default, help="Folder for the fetched test files.")
    parser.add_argument("--tests", type=Path, help="The tests folder of a checkout, instead of fetching one.")
    parser.add_argument("--only", choices=MIXINS, help="Run one mixin.")
    args = parser.parse_args(arguments)
    with_generation = import_tests(args.tests or fetch_tests(args.cache))
    transformers.utils.logging.set_verbosity_error()
    print(f"transformers {transformers.__version__}")
    table = {
        name: run(name, case) for name, case in suites(with_generation).items() if args.only in (None, name)
    }
    print(f"{'mixin':<15}{'passed':>8}{'skipped':>9}{'failed':>8}")
    for name, counts in table.items():
        print(f"{name:<15}{counts['passed']:>8}{counts['skipped']:>9}{counts['failed']:>8}")
    if not with_generation:
        print(
            "generation     not run: GenerationTesterMixin is not part of the source distribution; --tests FOLDER, the "
            f"tests folder of a checkout of v{transformers.__version__}, adds it"
        )
    return sum(counts["failed"] for counts in table.values())


if __name__ == "__main__":
    sys.exit(min(main(), 1))
