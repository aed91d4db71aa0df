"""Localizers that ask others: a segmentation program run per image, and boxes that a detector has written as COCO."""

import shlex
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

from vividmed.data.masks import Box
from vividmed.data.pseudo_labels.localizers import Found, Localizer, MaskFolder, NameTable, Request
from vividmed.data.pseudo_labels.study import digest
from vividmed.data.raw.boxes import box_2d
from vividmed.data.raw.documents import read_json
from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage

LEAST_SCORE = 0.1
_WORDS = ("image", "output", "targets")
_SHOWN = 300


class Program(Localizer):
    """Runs a command per image and reads the masks that it writes.

    The command is split like a shell's words, but no shell runs it. ``{image}`` stands for the image (NIfTI, or PNG in 2D),
    ``{output}`` for a folder that does not exist yet, or, written ``{output}.nii.gz``, for a label map, and ``{targets}``
    for the names of the targets, separated by commas.

    Args:
        command: such as ``TotalSegmentator -i {image} -o {output}``.
        table: names of the program.
        originals: file of the original image, with ``{id}`` for the name of the case, for programs that need the intensities
            that prepared rows no longer have; None for the image of the row.
        timeout: seconds per image.
    """

    def __init__(
        self, command: str, table: NameTable, *, originals: str | None = None, timeout: float = 3600.0
    ) -> None:
        try:
            self.words = shlex.split(command)
            for word in self.words:
                word.format(**dict.fromkeys(_WORDS, ""))
            if originals is not None and originals.format(id="case") == originals:
                raise VividMedError(
                    f"--originals {originals}: lacks {{id}}; write it where the name of the case stands"
                )
        except (ValueError, KeyError, IndexError) as error:
            raise VividMedError(
                f"--program {command!r}: cannot be understood ({error}); use {', '.join(f'{{{w}}}' for w in _WORDS)}"
            ) from error
        if not any("{image}" in word for word in self.words) or not any("{output}" in w for w in self.words):
            raise VividMedError(f"--program {command!r}: needs {{image}} and {{output}}")
        if shutil.which(self.words[0]) is None:
            raise VividMedError(f"--program: {self.words[0]} is not installed; install it or give its path")
        self.command = command
        self.table = table
        self.originals = originals
        self.timeout = timeout
        self.name = f"program {Path(self.words[0]).name}"

    @property
    def settings(self) -> dict[str, Any]:
        table = digest([sorted(self.table.values.items()), sorted(self.table.names.items())])
        return {"name": self.name, "command": self.command, "table": table, "originals": self.originals}

    def locate(self, request: Request) -> Iterable[Found]:
        with tempfile.TemporaryDirectory(prefix="vividmed-") as work:
            folder = Path(work)
            image = self._image(request, folder)
            masks = folder / "masks"
            masks.mkdir()
            output = masks / "case"
            values = {"image": str(image), "output": str(output), "targets": ",".join(request.targets)}
            self._run([word.format(**values) for word in self.words], request)
            case = replace(request, id="case", number=0, images=1)
            return list(MaskFolder(masks, self.table).locate(case))

    def _image(self, request: Request, folder: Path) -> Path:
        if self.originals is None:
            return write_image(request.image, folder / "image")
        for name in request.names[::-1]:
            if (path := Path(self.originals.format(id=name))).exists():
                return path
        raise VividMedError(f"--originals {self.originals}: has no file of {request.id}")

    def _run(self, words: list[str], request: Request) -> None:
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=self.timeout, check=False, errors="replace"
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise VividMedError(f"--program: {self.name} failed on {request.id} ({error})") from error
        if done.returncode:
            last = " ".join((done.stderr or done.stdout).split())[-_SHOWN:]
            raise VividMedError(
                f"--program: {self.name} failed on {request.id} with status {done.returncode} ({last})"
            )


def write_image(image: MedicalImage, stem: Path) -> Path:
    """Write an image as NIfTI, or a 2D image as PNG, and return the file."""
    if image.size[0] == 1 and not image.oriented:
        path = stem.with_suffix(".png")
        picture = image.array[:, 0].transpose(1, 2, 0).squeeze(-1) if len(image.array) == 1 else None
        Image.fromarray(image.array[:, 0].transpose(1, 2, 0) if picture is None else picture).save(path)
        return path
    path = stem.with_name(f"{stem.name}.nii.gz")
    nifti = nib.Nifti1Image(np.ascontiguousarray(image.array[0].transpose(2, 1, 0)), image.affine)
    nifti.header.set_xyzt_units("mm")
    nib.save(nifti, path)
    return path


class CocoBoxes(Localizer):
    """Boxes of a detector in a COCO file: ``images``, ``categories`` and ``annotations`` with ``bbox`` and perhaps ``score``.

    An image belongs to a study if its file is named after it (see :class:`~vividmed.data.pseudo_labels.localizers.Request`).
    Boxes follow if the row's image was reduced from the size that the file states.

    Args:
        path: JSON file.
        table: names of the detector's categories, in addition to the taxonomy.
        least_score: boxes with a lower score are left out; boxes without a score are kept.
    """

    def __init__(
        self, path: Path, table: NameTable | None = None, *, least_score: float = LEAST_SCORE
    ) -> None:
        self.path = path
        self.table = table or NameTable("taxonomy")
        self.least_score = least_score
        self.name = f"boxes of {path.name}"
        content = read_json(path)
        try:
            names = {each["id"]: self.table.target(str(each["name"])) for each in content["categories"]}
            self._images = {_name(each["file_name"]): each for each in content["images"]}
            self._boxes: dict[Any, list[tuple[str, Sequence[float], float | None]]] = defaultdict(list)
            for each in content["annotations"]:
                target = names[each["category_id"]]
                score = each.get("score")
                score = None if score is None else float(score)
                if target is not None:
                    self._boxes[each["image_id"]].append((target, [float(v) for v in each["bbox"]], score))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise VividMedError(
                f"{path}: is not a COCO file with images, categories and annotations ({type(error).__name__}: {error})"
            ) from error
        self._digest = digest(content)

    @property
    def settings(self) -> dict[str, Any]:
        return {"name": self.name, "file": self._digest, "least_score": self.least_score}

    def locate(self, request: Request) -> Iterable[Found]:
        if request.image.size[0] != 1:
            raise VividMedError(f"{request.id}: is a volume; boxes of a COCO file are for 2D images")
        listed = next((self._images[name] for name in request.names if name in self._images), None)
        if listed is None:
            raise VividMedError(f"{self.path}: lists no image of {request.id}")
        for target, bbox, score in self._boxes.get(listed["id"], ()):
            if target in request.targets and (score is None or score >= self.least_score):
                yield Found(target, box=self._box(bbox, listed, request), score=score)

    def _box(self, bbox: Sequence[float], listed: dict[str, Any], request: Request) -> Box:
        _, height, width = request.image.size
        x, y, w, h = bbox
        across = width / float(listed.get("width") or width)
        down = height / float(listed.get("height") or height)
        where = f"{self.path}: {request.id}"
        left, right = max(0.0, x * across), min(float(width), (x + w) * across)
        top, bottom = max(0.0, y * down), min(float(height), (y + h) * down)
        z0, y0, x0, z1, y1, x1 = box_2d(left, top, right, bottom, where=where)
        if y0 >= y1 or x0 >= x1:
            raise VividMedError(f"{where}: a box is smaller than a pixel of the row's image")
        return z0, y0, x0, z1, y1, x1


def _name(file: str) -> str:
    return Path(str(file)).name.partition(".")[0]
