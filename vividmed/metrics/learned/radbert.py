"""The RadBERT classifier of CT-RATE (Hamamci et al., 2024): 18 abnormalities of a chest CT report."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from vividmed.errors import VividMedError
from vividmed.metrics.classification import classification_figures, f1_by_condition, stacked
from vividmed.metrics.learned.weights import (
    file_hash,
    fill,
    from_folder,
    load_tokenizer,
    read_weights,
    weight_file,
)
from vividmed.metrics.metric import ItemMetric, check_lengths

ABNORMALITIES = (
    "Medical material",
    "Arterial wall calcification",
    "Cardiomegaly",
    "Pericardial effusion",
    "Coronary artery wall calcification",
    "Hiatal hernia",
    "Lymphadenopathy",
    "Emphysema",
    "Atelectasis",
    "Lung nodule",
    "Lung opacity",
    "Pulmonary fibrotic sequela",
    "Pleural effusion",
    "Mosaic attenuation pattern",
    "Peribronchial thickening",
    "Consolidation",
    "Bronchiectasis",
    "Interlobular septal thickening",
)
_LONGEST = 512
_REMEDY = (
    "take models/RadBertClassifier.pth of the CT-RATE repository, and configuration and tokenizer of "
    "zzxslp/RadBERT-RoBERTa-4m"
)


class _Network(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        self.model = AutoModel.from_config(config)
        self.classifier = nn.Linear(config.hidden_size, len(ABNORMALITIES))

    @classmethod
    def of_folder(cls, folder: str, **options: Any) -> "_Network":
        """A network of the size that ``config.json`` states."""
        return cls(AutoConfig.from_pretrained(folder, **options))


class RadBERTLabeller:
    """Labels reports.

    Args:
        folder: ``RadBertClassifier.pth``, and ``config.json`` and tokenizer of its encoder.

    Raises:
        VividMedError: a file is missing or damaged.
    """

    def __init__(self, folder: str | Path):
        self.path = weight_file("radbert", folder, "RadBertClassifier.pth", remedy=_REMEDY)
        weight_file("radbert", folder, "config.json", remedy=_REMEDY)
        self.model = from_folder("radbert", folder, _Network.of_folder).eval()
        size = self.model.model.config.vocab_size
        self.tokenizer = load_tokenizer("radbert", folder, AutoTokenizer.from_pretrained, size=size)
        fill(self.model, read_weights(self.path), self.path)

    @torch.no_grad()
    def __call__(self, text: str) -> np.ndarray:
        """(18,) bool: abnormalities with a probability of at least one half, in the order of ``ABNORMALITIES``."""
        batch = self.tokenizer(
            text.replace("\n", " "), truncation=True, max_length=_LONGEST, return_tensors="pt"
        )
        state = self.model.model(batch["input_ids"], attention_mask=batch["attention_mask"]).pooler_output
        return (self.model.classifier(state)[0].sigmoid() >= 0.5).numpy()


class RadBERT(ItemMetric):
    """Agreement of 18 abnormalities in the prediction with those of the reference.

    Figures as in :func:`vividmed.metrics.classification.classification_figures`, ``radbert_f1/ABNORMALITY`` for one.

    Each reference is ``{"id": ..., "text": ...}``. Its labels are those of the table of labels by the name of its volume,
    as published, or what the classifier finds in its text.

    Args:
        folder: see :class:`RadBERTLabeller`.
        labels: CSV file with ``VolumeName`` and a column of 0 and 1 for each abnormality.

    Raises:
        VividMedError: a file is missing or damaged.
    """

    description = "agreement of 18 abnormalities by RadBERT"
    features = datasets.Features(
        {
            "predictions": datasets.Value("string"),
            "references": {"id": datasets.Value("string"), "text": datasets.Value("string")},
        }
    )

    def __init__(self, folder: str | Path, *, labels: str | Path | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.labeller = RadBERTLabeller(folder)
        self.labels = None if labels is None else _read_labels(Path(labels))

    def scorer(self) -> Mapping[str, Any]:
        return {
            "file": self.labeller.path.name,
            "sha256": file_hash(self.labeller.path),
            "labels of references": "by the classifier" if self.labels is None else "from the table",
        }

    def score_items(
        self, predictions: Sequence[str], references: Sequence[Mapping[str, str]]
    ) -> list[Mapping[str, np.ndarray]]:
        check_lengths(predictions, references)
        return [
            {"found": self.labeller(prediction), "true": self._true(reference)}
            for prediction, reference in zip(predictions, references, strict=True)
        ]

    def _true(self, reference: Mapping[str, str]) -> np.ndarray:
        if self.labels is None:
            return self.labeller(reference["text"])
        volume = _volume(reference["id"])
        if volume not in self.labels:
            raise VividMedError(
                f"radbert: the table of labels has no volume {volume!r}; give the table of this split, or leave it out"
            )
        return self.labels[volume]

    def aggregate(self, items: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
        found, true = stacked(items)
        figures = {f"radbert_{name}": value for name, value in classification_figures(found, true).items()}
        by_condition = f1_by_condition(found, true, ABNORMALITIES)
        return figures | {f"radbert_f1/{name}": value for name, value in by_condition.items()}


def _volume(name: str) -> str:
    """Name of a volume, without data set, turn, image and ending."""
    return re.split(r"[#@]", name.rpartition(":")[2])[0].removesuffix(".gz").removesuffix(".nii")


def _read_labels(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        return {
            _volume(row["VolumeName"]): np.array([float(row[name]) > 0 for name in ABNORMALITIES])
            for row in rows
        }
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise VividMedError(f"--labels {path}: cannot be read ({error}); give a CSV file") from error
    except (KeyError, TypeError, ValueError) as error:
        raise VividMedError(
            f"--labels {path}: is not a table with VolumeName and 0 or 1 for {len(ABNORMALITIES)} abnormalities ({error}); "
            "give multi_abnormality_labels of CT-RATE"
        ) from error
