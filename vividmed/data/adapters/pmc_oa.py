"""PMC-OA: captioned parts of figures in the open-access articles of PubMed Central."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    Listed,
    Skipped,
    below,
    caption_turn,
    each_case,
    register,
)
from vividmed.data.raw.documents import read_records
from vividmed.data.raw.report_text import MIN_CAPTION_LETTERS, clean_text

_ARTICLE = re.compile(r"PMC\d+")


@register
class PMCOA(Adapter):
    name = "pmc-oa"
    title = "PMC-OA"
    row_kind = "vision_language"
    modalities = ()
    licence = "of each article (not checked one by one)"
    access = "open"
    redistribute = "no"
    terms = "Figures keep the licences of their articles, some of which forbid changed copies."
    homepage = "https://huggingface.co/datasets/axiong/pmc_oa"
    citation = "Lin et al. PMC-CLIP: Contrastive Language-Image Pre-training using Biomedical Documents. MICCAI, 2023."
    layout = {"pmc_oa.jsonl": 1, "caption_T060_filtered_top4_sep_v0_subfigures/*.jpg": None}
    gigabytes = 22.0

    def cases(self, origin: Path) -> Iterator[Listed]:
        records = read_records(origin / "pmc_oa.jsonl", "image", "caption")
        folder = origin / "caption_T060_filtered_top4_sep_v0_subfigures"
        yield from each_case(
            ((str(record["image"]), record) for record in records), partial(_case, folder=folder)
        )


def _case(record: dict[str, Any], *, folder: Path) -> Case | Skipped:
    path = below(folder, record["image"])
    caption = clean_text(record["caption"])
    if len(caption) < MIN_CAPTION_LETTERS:
        return Skipped(path.stem, f"its caption has fewer than {MIN_CAPTION_LETTERS} letters")
    article = _ARTICLE.search(path.name)
    return Case(
        id=path.stem,
        patient=article[0] if article else path.stem,  # figures of an article may show one person
        images=(ImageFile(path=path, modality=""),),
        turns=(caption_turn(_sentence(caption)),),
    )


def _sentence(caption: str) -> str:
    """Add a capital and a full stop."""
    end = "" if caption[-1] in ".?!" else "."
    return f"{caption[0].upper()}{caption[1:]}{end}"
