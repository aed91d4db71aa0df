"""Names of all metrics and their figures; without imports, for arguments and help texts.

A *metric* is asked for by name and gives one or more *figures*. A *family* is a group of metrics.
"""

from collections.abc import Iterable

from vividmed.errors import VividMedError

TASKS = ("vqa", "report", "ground", "grounded-report")
_TEXT_TASKS = ("vqa", "report", "grounded-report")
_REPORT_TASKS = ("report", "grounded-report")

_AVERAGED = tuple(
    f"{figure}_{average}"
    for figure in ("f1", "false_omission_rate", "false_negative_rate")
    for average in ("macro", "micro")
)

FIGURES: dict[str, tuple[str, ...]] = {
    "bleu": ("bleu1", "bleu2", "bleu3", "bleu4"),
    "rouge": ("rouge1", "rouge2", "rougeL"),
    "cider": ("cider",),
    "meteor": ("meteor",),
    "bertscore": ("bertscore",),
    "exact_match": ("exact_match",),
    "token_f1": ("token_f1", "token_precision", "token_recall"),
    "accuracy": ("accuracy", "closed_accuracy", "closed_unparsed", "open_accuracy"),
    "judge": ("judge", "judge_unparsed"),
    "findings": ("finding_f1_micro", "finding_f1_macro", "finding_precision", "finding_recall"),
    "laterality": ("laterality_accuracy", "laterality_unstated"),
    "chexbert": tuple(f"chexbert_{findings}_{figure}" for findings in ("14", "5") for figure in _AVERAGED),
    "radgraph": ("radgraph_simple", "radgraph_partial", "radgraph_complete"),
    "radcliq": ("radcliq_v0", "radcliq_v1", "radcliq_v0_published", "radcliq_v1_published"),
    "radbert": tuple(f"radbert_{figure}" for figure in _AVERAGED),
    "segmentation": ("dice", "hd95", "nsd"),
    "detection": ("ap", "ap50", "ap40", "best_iou", "froc"),
    "grounding": (
        "hit_rate",
        "box_accuracy",
        "suppression",
        "absent_voxels",
        "instance_precision",
        "instance_recall",
        "instance_f1",
    ),
    "radfact": tuple(
        f"{kind}_{figure}"
        for kind in ("logical", "grounding", "spatial")
        for figure in ("precision", "recall", "f1")
    ),
    "agreement": ("side_agreement", "size_agreement", "count_agreement"),
}
"""Figures of each metric."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "text": ("bleu", "rouge", "cider"),
    "vqa": ("exact_match", "token_f1", "accuracy"),
    "clinical": ("findings", "laterality"),
}
"""Metrics that are asked for together."""

METRIC_TASKS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("bleu", "rouge", "cider", "meteor", "bertscore", "laterality"), _TEXT_TASKS),
    **dict.fromkeys(("exact_match", "token_f1", "accuracy", "judge"), ("vqa",)),
    **dict.fromkeys(("findings", "chexbert", "radgraph", "radcliq", "radbert"), _REPORT_TASKS),
    **dict.fromkeys(("segmentation", "detection", "grounding"), ("ground",)),
    **dict.fromkeys(("radfact", "agreement"), ("grounded-report",)),
}
"""Tasks that each metric can score."""

SOURCES: dict[str, str] = {
    "bertscore": "a folder with an encoder and its tokenizer",
    "judge": "the address of an OpenAI-compatible endpoint, or a folder with a language model",
    "chexbert": "a folder with chexbert.pth and the tokenizer of bert-base-uncased",
    "radgraph": "a folder with the unpacked RadGraph model and its encoder",
    "radbert": "a folder with RadBertClassifier.pth, and config.json and tokenizer of its encoder",
}
"""What has to be given as ``NAME=PLACE`` for metrics that need weights."""

LOWER_IS_BETTER = frozenset(
    {
        "hd95",
        "absent_voxels",
        "closed_unparsed",
        "judge_unparsed",
        "laterality_unstated",
        *FIGURES["radcliq"],
        *(name for figures in FIGURES.values() for name in figures if "false_" in name),
    }
)
"""Figures that a better model has less of."""

_LOSS_NAMES = frozenset({"dice", "hd95", "nsd"})


def expand(names: Iterable[str], *, where: str) -> list[str]:
    """Metrics of a list of names of metrics, families and figures, each once.

    Args:
        names: as the user gives them.
        where: the argument that they stand in, for the error.

    Raises:
        VividMedError: a name is unknown.
    """
    owners = {figure: metric for metric, figures in FIGURES.items() for figure in figures}
    found: dict[str, None] = {}
    for name in names:
        metrics = FAMILIES.get(name) or ((name,) if name in FIGURES else None)
        if metrics is None and name in owners:
            metrics = (owners[name],)
        if metrics is None:
            known = ", ".join([*FAMILIES, *FIGURES])
            raise VividMedError(f"{where}: {name!r} is unknown; use one of {known}")
        found |= dict.fromkeys(metrics)
    return list(found)


def logged_name(figure: str) -> str:
    """Name of a figure in the log of a training, where ``dice`` is a loss."""
    return f"mask_{figure}" if figure in _LOSS_NAMES else figure


def is_greater_better(logged: str) -> bool | None:
    """Whether more of a logged figure is better; None if no metric gives it."""
    name = logged.removeprefix("mask_") if logged.removeprefix("mask_") in _LOSS_NAMES else logged
    if logged in _LOSS_NAMES or not any(name in figures for figures in FIGURES.values()):
        return None
    return name not in LOWER_IS_BETTER
