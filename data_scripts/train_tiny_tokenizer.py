"""Train the SentencePiece tokenizer of the tiny model.

The text is composed here, from word lists and sentence frames of our own: questions and answers about modality, plane,
organs, sides, sizes and volumes, and short reports. The result is the same on every run.

    python data_scripts/train_tiny_tokenizer.py [--output vividmed/processing/tiny_tokenizer]
"""

import argparse
import io
import random
from collections.abc import Iterator
from pathlib import Path

import sentencepiece
from transformers import LlamaTokenizer

from vividmed.processing.tokenizer import load_sentencepiece_tokenizer

SENTENCES = 40_000
VOCABULARY = 1024
OUTPUT = Path(__file__).parents[1] / "vividmed" / "processing" / "tiny_tokenizer"

MODALITIES = (
    "CT", "contrast-enhanced CT", "CT angiography", "MRI", "T1-weighted MRI", "T2-weighted MRI", "FLAIR MRI", "PET",
    "X-ray", "chest X-ray", "chest radiograph", "radiograph", "ultrasound", "mammography", "computed tomography",
    "magnetic resonance imaging", "digital radiography",
)  # fmt: skip
PLANES = (
    "axial", "coronal", "sagittal", "frontal", "lateral", "oblique", "transverse", "posteroanterior", "anteroposterior",
)  # fmt: skip
REGIONS = (
    "chest",
    "abdomen",
    "pelvis",
    "head",
    "neck",
    "brain",
    "spine",
    "shoulder",
    "knee",
    "thorax",
    "whole body",
)
PAIRED = (
    "lung", "kidney", "adrenal gland", "femur", "hip", "hip bone", "scapula", "clavicle", "humerus", "iliac artery", "iliac vein",
    "lung upper lobe", "lung lower lobe", "atrium", "ventricle", "autochthonous muscle", "gluteus maximus",
    "gluteus medius", "iliopsoas", "breast", "carotid artery", "subclavian artery", "brachiocephalic vein",
    "pleural cavity", "hemidiaphragm", "hilum", "costophrenic angle", "lung field", "rib", "hemisphere",
)  # fmt: skip
SINGLE = (
    "heart", "liver", "spleen", "pancreas", "stomach", "gallbladder", "duodenum", "colon", "small bowel", "bladder",
    "prostate", "uterus", "aorta", "inferior vena cava", "superior vena cava", "portal and splenic vein", "esophagus",
    "oesophagus", "trachea", "thyroid gland", "brain", "spinal cord", "sacrum", "sternum", "skull", "mediastinum",
    "pulmonary vein", "pulmonary artery", "right middle lobe of the lung", "costal cartilages", "vertebral column",
    "vertebra T12", "vertebra L1", "vertebra L5", "vertebra C7", "cardiac silhouette", "diaphragm", "rib cage", "airway",
)  # fmt: skip
FINDINGS = (
    "nodule", "lung nodule", "pulmonary nodule", "mass", "lesion", "tumour", "tumor", "brain tumor", "lung lesion", "breast lesion", "cyst",
    "effusion", "pleural effusion", "pneumothorax", "consolidation", "opacity", "atelectasis", "cardiomegaly", "fracture",
    "oedema", "edema", "emphysema", "calcification", "haemorrhage", "infarct", "metastasis", "lymphadenopathy", "stone",
    "ground-glass opacity", "thickening", "scoliosis", "hernia", "abscess", "aneurysm", "stenosis", "enhancement",
)  # fmt: skip
QUALITIES = (
    "small", "large", "enlarged", "normal", "clear", "visible", "dilated", "calcified", "solitary", "multiple", "stable",
    "well-defined", "irregular", "homogeneous", "heterogeneous", "unremarkable", "intact", "mild", "moderate", "severe",
    "round", "oval", "dense", "bright", "dark", "hypodense", "hyperintense", "not enlarged", "within normal limits",
)  # fmt: skip
PLACES = (
    "upper", "lower", "middle", "anterior", "posterior", "medial", "lateral", "central", "peripheral", "superior",
    "inferior", "basal", "apical", "proximal", "distal",
)  # fmt: skip
QUESTIONS = (
    "What is the modality of this image?", "What modality is this?", "Which imaging modality was used?",
    "Which imaging technique produced this image?", "How was this image acquired?", "What kind of scan is this?",
    "What is the plane of this image?", "Which plane is shown?", "In which plane was this image taken?",
    "Which imaging plane does this image show?", "What body part is shown?", "Which part of the body does the image show?",
    "Describe this image.", "Please describe the image.", "What are the findings?", "What does this image show?",
    "Please write a report for this scan.", "Write a radiology report of the image.", "Is the image normal?",
    "What abnormality is visible?", "Which organs are visible in this image?", "Which structures can be seen?",
    "Give the findings of this study.", "Compare the two images.", "What has changed since the prior study?",
)  # fmt: skip


def sentences(count: int, seed: int = 0) -> Iterator[str]:
    """Compose ``count`` questions, answers and report sentences."""
    draw = random.Random(seed)
    frames = (question, short_answer, presence, size, volume, location, count_of, comparison, report)
    for _ in range(count):
        yield draw.choice(frames)(draw)


def structure(draw: random.Random) -> str:
    """An organ, with its side where it has one."""
    if draw.random() < 0.5:
        return draw.choice(SINGLE)
    return f"{draw.choice(('left', 'right', 'left', 'right', 'both'))} {draw.choice(PAIRED)}"


def target(draw: random.Random) -> str:
    return structure(draw) if draw.random() < 0.5 else draw.choice(FINDINGS)


def listing(items: list[str], last: str = "and") -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"


def number(draw: random.Random) -> str:
    value = draw.choice((draw.uniform(0, 10), draw.uniform(10, 100), draw.uniform(100, 2000)))
    return f"{value:.1f}" if draw.random() < 0.5 else str(round(value))


def question(draw: random.Random) -> str:
    if draw.random() < 0.3:
        return draw.choice(QUESTIONS)
    thing = target(draw)
    return draw.choice(
        (
            f"Is there a {thing} in this image?", f"Is there any {thing} in the image?", f"Is the {thing} visible?",
            f"Can the {thing} be seen in this image?", f"Does the image show the {thing}?", f"Where is the {thing}?",
            f"On which side is the {thing}?", f"How large is the {thing}?", f"What is the volume of the {thing}?",
            f"What is the size of the {thing}?", f"Which side is affected by the {thing}?", f"How many {thing}s are there?",
            f"Are {listing([target(draw) for _ in range(3)], 'or')} present? Answer yes or no for each.",
            f"Please segment the {thing}.", f"Is the {thing} larger than the {target(draw)}?", f"Is there evidence of {thing}?",
        )
    )  # fmt: skip


def short_answer(draw: random.Random) -> str:
    modality, plane, region = draw.choice(MODALITIES), draw.choice(PLANES), draw.choice(REGIONS)
    return draw.choice(
        (
            f"{modality}.", f"This is a {modality}.", f"The modality of this image is {modality}.", f"{plane}.",
            f"It is a {modality} image of the {region}.", f"The image is a {plane} {modality} slice of the {region}.",
            f"The image shows the {region} in the {plane} plane.", f"The plane is {plane}.", f"{plane.capitalize()} plane.",
            f"A 3D {modality} volume of the {region}.", "Yes.", "No.", "Yes, it is.", "No, it is not visible.",
            f"Axial {modality} of the {region} with {draw.randint(2, 99)} slices.", f"{modality} of the {region}.",
        )
    )  # fmt: skip


def presence(draw: random.Random) -> str:
    names = [target(draw) for _ in range(draw.randint(1, 4))]
    return draw.choice(
        (
            "Results: " + ", ".join(f"{name}: {draw.choice(('yes', 'no'))}" for name in names) + ".",
            f"Yes, the {names[0]} is visible.", f"No, there is no {names[0]}.", f"No {listing(names, 'or')} is seen.",
            f"The {listing(names)} are visible in this image.", f"There is no evidence of {names[0]}.",
            f"Yes, there is a {names[0]} in the {structure(draw)}.", f"The {names[0]} cannot be seen.",
        )
    )  # fmt: skip


def size(draw: random.Random) -> str:
    a, b, c = (number(draw) for _ in range(3))
    return draw.choice(
        (
            f"The {target(draw)} measures {a} x {b} x {c} mm.", f"The {target(draw)} measures {a} x {b} mm.",
            f"It measures about {a} mm in its largest diameter.", f"A {target(draw)} of {a} mm is present.",
            f"The {target(draw)} is {a} mm long, {b} mm wide and {c} mm high.", f"{a} mm.", f"About {a} cm.",
        )
    )  # fmt: skip


def volume(draw: random.Random) -> str:
    value = number(draw)
    return draw.choice(
        (
            f"The {target(draw)} has a volume of {value} ml.", f"The volume of the {target(draw)} is about {value} ml.",
            f"{value} ml.", f"The {target(draw)} occupies {draw.randint(1, 99)} percent of the image.",
            f"Its volume is {value} ml, its mean density is {draw.randint(-900, 900)} HU.",
        )
    )  # fmt: skip


def location(draw: random.Random) -> str:
    side = draw.choice(("left", "right"))
    return draw.choice(
        (
            f"The {draw.choice(FINDINGS)} lies in the {side} {draw.choice(PAIRED)}.", f"On the {side} side.",
            f"The {target(draw)} is on the {side} side of the image.", f"It is in the {draw.choice(PLACES)} part.",
            f"There is a {draw.choice(QUALITIES)} {draw.choice(FINDINGS)} in the {draw.choice(PLACES)} {structure(draw)}.",
            f"The {target(draw)} lies {draw.choice(('above', 'below', 'next to', 'behind', 'in front of'))} the {structure(draw)}.",
            f"The {structure(draw)} is seen in the {side} half of the image.", f"{side.capitalize()}.", "Both sides.",
        )
    )  # fmt: skip


def count_of(draw: random.Random) -> str:
    words = ("one", "two", "three", "four", "five", "several", "no")
    return draw.choice(
        (
            f"There are {draw.choice(words)} {draw.choice(FINDINGS)}s.", f"There is one {draw.choice(FINDINGS)}.",
            f"{draw.choice(words).capitalize()} of the structures are visible: {listing([target(draw) for _ in range(3)])}.",
        )
    )  # fmt: skip


def comparison(draw: random.Random) -> str:
    first, second = target(draw), target(draw)
    return draw.choice(
        (
            f"The {first} is larger than the {second}.", f"The {first} is smaller than the {second}.",
            f"Compared with the prior image, the {first} has {draw.choice(('grown', 'shrunk', 'not changed', 'increased'))}.",
            f"The {first} and the {second} are similar in size.",
        )
    )  # fmt: skip


def report(draw: random.Random) -> str:
    lines = [
        f"The {structure(draw)} is {draw.choice(QUALITIES)}.",
        f"The {structure(draw)} and the {structure(draw)} are {draw.choice(QUALITIES)}.",
        f"No {draw.choice(FINDINGS)} or {draw.choice(FINDINGS)} is seen.",
        location(draw),
        size(draw),
    ]
    findings = " ".join(draw.sample(lines, draw.randint(2, 4)))
    return f"Findings: {findings}" if draw.random() < 0.5 else f"Impression: {draw.choice(lines)}"


def train(output: Path) -> None:
    """Train, add the special tokens, and save in transformers' form together with the SentencePiece model."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences(SENTENCES),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY,
        # As Llama's tokenizer: nothing normalised, digits apart, unknown characters spelt in bytes.
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        byte_fallback=True,
        character_coverage=1.0,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=1,
    )
    output.mkdir(parents=True, exist_ok=True)
    (output / "tokenizer.model").write_bytes(model.getvalue())
    load_sentencepiece_tokenizer(output / "tokenizer.model").save_pretrained(output)


def main() -> None:
    """Train and report how compact the tokenizer is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help="folder to write (default: the package's)"
    )
    output = parser.parse_args().output
    train(output)
    tokenizer = LlamaTokenizer.from_pretrained(output)
    held_out = list(sentences(1000, seed=1))
    tokens = sum(len(tokenizer.tokenize(sentence)) for sentence in held_out)
    words = sum(len(sentence.split()) for sentence in held_out)
    print(f"{output}: {len(tokenizer)} tokens; {tokens / words:.2f} tokens a word on new sentences")


if __name__ == "__main__":
    main()
