"""PMC-OA: captioned parts of figures in the open-access articles of PubMed Central."""

import re
from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, Skipped, caption_turn, register
from vividmed.data.raw.documents import as_line, read_records

_ARTICLE = re.compile(r"PMC\d+")
_SHORTEST = 10


@register
class PMCOA(Adapter):
    name = "pmc-oa"
    title = "PMC-OA"
    row_kind = "vision_language"
    modalities = ()
    licence = "of each article (not looked at one by one)"
    access = "open"
    redistribute = "no"
    terms = "Figures keep the licences of their articles, some of which forbid changed copies."
    homepage = "https://huggingface.co/datasets/axiong/pmc_oa"
    citation = "Lin et al. PMC-CLIP: Contrastive Language-Image Pre-training using Biomedical Documents. MICCAI, 2023."
    layout = {"pmc_oa.jsonl": 1, "caption_T060_filtered_top4_sep_v0_subfigures/*.jpg": None}
    gigabytes = 22.0

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        folder = origin / "caption_T060_filtered_top4_sep_v0_subfigures"
        for record in read_records(origin / "pmc_oa.jsonl", "image", "caption"):
            path = folder / record["image"]
            caption = as_line(record["caption"])
            if len(caption) < _SHORTEST:
                yield Skipped(path.stem, f"its caption has fewer than {_SHORTEST} letters")
                continue
            article = _ARTICLE.search(path.name)
            yield Case(
                id=path.stem,
                patient=article[0] if article else path.stem,  # figures of an article may show one person
                images=(ImageFile(path=path, modality=""),),
                turns=(caption_turn(_sentence(caption)),),
            )


def _sentence(caption: str) -> str:
    """With a capital and a full stop."""
    end = "" if caption[-1] in ".?!" else "."
    return f"{caption[0].upper()}{caption[1:]}{end}"
