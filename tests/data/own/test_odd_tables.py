"""Odd tables: each gives the right rows, or one clear line about every row that it does not give."""

import datetime
import gzip
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vividmed.data.own.listing import OwnListing
from vividmed.data.own.table import read_table_listing
from vividmed.data.own.table_rows import TableOptions
from vividmed.errors import VividMedError

Q = "image,question,answer\n"
Rows = list[tuple[str, ...]]


@dataclass(frozen=True)
class Odd:
    """A table and what becomes of it.

    Attributes:
        content: of the file; ``{images}`` stands for the folder of images. A function makes it from that folder.
        rows: images and answers of each row.
        refused: number, column and part of the reason of each row that is refused.
        error: part of the line that refuses the whole table.
        name: of the file.
        options: how it is read.
        note: part of a note.
        check: further check of the listing.
    """

    content: str | bytes | Callable[[Path], str | bytes]
    rows: Rows = field(default_factory=list)
    refused: list[tuple[int, str, str]] = field(default_factory=list)
    error: str = ""
    name: str = "t.csv"
    options: TableOptions = field(default_factory=TableOptions)
    note: str = ""
    check: Callable[[OwnListing], bool] = lambda listing: True


def workbook(
    *sheets: tuple[str, list[list[Any]]],
    formats: dict[str, str] | None = None,
    merged: str = "",
    hidden: str = "",
) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        book.remove(book.active)
        for title, rows in sheets:
            sheet = book.create_sheet(title)
            for row in rows:
                sheet.append(row)
            for cell, code in (formats or {}).items():
                sheet[cell].number_format = code
            for area in merged.split():
                sheet.merge_cells(area)
            if title == hidden:
                sheet.sheet_state = "hidden"
        stream = io.BytesIO()
        book.save(stream)
        return stream.getvalue()

    return make


def columns(**names: str) -> TableOptions:
    return TableOptions(columns={role: (name,) for role, name in names.items()})


def split_of(listing: OwnListing) -> set[tuple[str, str | None]]:
    return {(case.patient, case.split) for case in listing.cases}


ONE: Rows = [("a.png", "yes")]
TWO: Rows = [("a.png", "yes"), ("b.png", "no")]
PLAIN = "image,question,answer\na.png,ill?,yes\nb.png,ill?,no\n"
HEADER = ["image", "question", "answer"]
A, B = ["a.png", "ill?", "yes"], ["b.png", "ill?", "no"]

ODD = {
    # Delimiters
    "semicolons": Odd(PLAIN.replace(",", ";"), TWO, note="semicolons"),
    "tabs in a csv": Odd(PLAIN.replace(",", "\t"), TWO, note="tabs"),
    "bars": Odd(PLAIN.replace(",", "|"), TWO),
    "commas in a tsv": Odd(PLAIN, TWO, name="t.tsv"),
    "separator stated by Excel": Odd("sep=;\n" + PLAIN.replace(",", ";"), TWO),
    "a delimiter of one's own": Odd(PLAIN.replace(",", "~"), TWO, options=TableOptions(delimiter="~")),
    "tabs as a word": Odd(PLAIN.replace(",", "\t"), TWO, options=TableOptions(delimiter="\\t")),
    "a delimiter of two signs": Odd(PLAIN, error="--delimiter '||': give one character", options=TableOptions(delimiter="||")),
    "commas and semicolons": Odd("image;question;answer\na.png;ill, or not?;yes\n", ONE),
    # Encodings
    "byte order mark": Odd(PLAIN.encode("utf-8-sig"), TWO),
    "utf-16": Odd(PLAIN.encode("utf-16"), TWO, note="utf-16"),
    "utf-16 without a mark": Odd(PLAIN.encode("utf-16-le"), TWO, note="utf-16-le"),
    "cp1252": Odd(PLAIN.replace("yes", "größer").encode("cp1252"), [("a.png", "größer"), ("b.png", "no")], note="cp1252"),
    "latin-2 as stated": Odd("image,question,answer\na.png,q?,żółć\n".encode("iso8859-2"), [("a.png", "żółć")], options=TableOptions(encoding="iso8859-2")),
    "unknown encoding": Odd(PLAIN, error="--encoding 'klingon' is unknown", options=TableOptions(encoding="klingon")),
    "not the stated encoding": Odd("image,question,answer\na.png,q?,é\n", error="is not text in ascii", options=TableOptions(encoding="ascii")),
    "decomposed umlauts in a path": Odd("image,question,answer\na\u0308 o\u0308.png,q?,yes\n", [("ä ö.png", "yes")]),
    "NUL bytes": Odd(b"image,question,answer\na.png,q?," + b"\0" * 3 + b"x" * 9000 + b"\n", error="is not text|NUL byte"),
    "binary": Odd(b"\x89PNG\r\n\x1a\n" + bytes(range(1, 200)), error="no column|is not text"),
    # Line ends, quotes
    "Windows line ends": Odd(PLAIN.replace("\n", "\r\n"), TWO),
    "old Mac line ends": Odd(PLAIN.replace("\n", "\r"), TWO),
    "no line end at the end": Odd(PLAIN.rstrip(), TWO),
    "quotes, commas and line breaks in cells": Odd(Q + 'a.png,"Is it ""big"",\nor not?","yes,\nvery"\nb.png,ill?,no\n', [("a.png", "yes, very"), ("b.png", "no")]),
    "a quotation mark that is never closed": Odd(Q + 'c.jpg,"ill?,yes\na.png,ill?,yes\nb.png,ill?,no\n', TWO, [(2, "", "is not readable.*quotation mark")]),
    "a quotation mark that is closed two rows later": Odd(Q + 'a.png,ill?,yes\nc.jpg,"ill?,yes\n10.png,ill?,yes\nb.png,"ill?",no\n', TWO, [(3, "", "is not readable"), (4, "image", "'10.png' is not in")]),
    "quotation marks within a value": Odd(Q + 'a.png,ill?,yes\nc.jpg,"is it "big" or not?",no\nb.png,ill?,no\n', TWO, [(3, "", "is not readable.*double those inside")]),
    "a header with a quotation mark that is never closed": Odd('"image,question,answer\na.png,ill?,yes\n', error="row 1: is not readable"),
    "blank lines": Odd("\n\n" + Q + "\n" + "a.png,ill?,yes\n\n,,\nb.png,ill?,no\n", TWO),
    "a shifted row": Odd(PLAIN + "c.jpg,ill, or not?,yes\n", TWO, [(4, "", "has 4 fields but the header has 3")]),
    "a row that was cut off": Odd(PLAIN + "c.jpg,ill?\n", TWO, [(4, "answer", "is empty")]),
    "delimiters at the end of rows": Odd("image,question,answer\na.png,ill?,yes,,\nb.png,ill?,no,,\n", TWO),
    # Header
    "header only": Odd(Q, error="contains no rows below its header"),
    "empty file": Odd("", error="the file is empty"),
    "only space": Odd(" \n \n", error="the file is empty"),
    "no header": Odd("a.png,ill?,yes\nb.png,ill?,no\n", error="its first row is data"),
    "many lines above the header": Odd("remark,,\n" * 20 + PLAIN, TWO),
    "titles above the header": Odd("Study 7,,\nmade in 2026,,\n" + PLAIN, TWO),
    "capitals, spaces and signs in names": Odd("Image Path, QUESTION ,_answer_\na.png,ill?,yes\nb.png,ill?,no\n", TWO),
    "synonyms": Odd("file_name,Query,ground-truth\na.png,ill?,yes\nb.png,ill?,no\n", TWO),
    "index column of pandas": Odd(",image,question,answer\n0,a.png,ill?,yes\n1,b.png,ill?,no\n", TWO),
    "no column of images": Odd("question,answer\nill?,yes\n", error="no column of images is found; name it by --image-column"),
    "no column of answers": Odd("image,question\na.png,ill?\n", error="none of answers; name it by --answer-column"),
    "no texts": Odd("image,age\na.png,7\n", error="no column of questions and answers, or of reports"),
    "given columns": Odd("x,y,z\na.png,ill?,yes\n", ONE, options=columns(image="x", question="y", answer="z")),
    "given column that does not exist": Odd(PLAIN, error="--answer-column 'anwser': there is no such column; did you mean 'answer'", options=columns(answer="anwser")),
    "two columns of patients": Odd("image,question,answer,patient,patient\na.png,q?,yes,1,2\n", ONE, check=lambda x: x.cases[0].patient == "1"),
    "two columns that look like names of images": Odd("image,path,question,answer\n17,a.png,ill?,yes\n18,b.png,ill?,no\n", TWO),
    # Cells
    "empty cells": Odd(Q + "a.png,ill?,yes\n,ill?,no\nb.png,,no\nb.png,ill?,\n", ONE, [(3, "image", "is empty"), (4, "question", "is empty"), (5, "answer", "is empty")]),
    "NaN": Odd(Q + "a.png,ill?,yes\nb.png,ill?,nan\nNaN,ill?,no\n", ONE, [(3, "answer", "is empty"), (4, "image", "is empty")]),
    "None is an answer": Odd(Q + "a.png,What is wrong?,None\n", [("a.png", "None")]),
    "a report that says nothing": Odd("image,report\na.png,Not available.\nb.png,Clear lungs.\n", [("b.png", "Clear lungs.")], [(2, "report", "is empty")]),
    "findings and impression": Odd("image,Findings,Impression\na.png,Clear.,Normal.\n", [("a.png", "Findings: Clear.\nImpression: Normal.")]),
    "patients with leading zeros": Odd("image,question,answer,patient\na.png,q?,yes,007\nb.png,q?,no,7\n", TWO, check=lambda x: {case.patient for case in x.cases} == {"007", "7"}),
    "an empty patient": Odd("image,question,answer,patient\na.png,q?,yes,1\nb.png,q?,no,\n", ONE, [(3, "patient", "patients decide on splits")]),
    "a column of patients without any": Odd("image,question,answer,patient\na.png,q?,yes,\nb.png,q?,no,\n", TWO, note="'patient' is empty and not used", check=lambda x: not x.has_patients),
    # Several images and questions
    "columns of images": Odd("image_1,image_2,question,answer\na.png,b.png,same?,no\nc.jpg,,same?,yes\n", [("a.png", "b.png", "no"), ("c.jpg", "yes")]),
    "images between semicolons": Odd(Q + "a.png; b.png,same?,no\n", [("a.png", "b.png", "no")]),
    "a JSON list of images": Odd(Q + '"[""a.png"", ""b.png""]",same?,no\n', [("a.png", "b.png", "no")]),
    "a list as pandas prints it": Odd(Q + "\"['a.png', 'b.png']\",same?,no\n", [("a.png", "b.png", "no")]),
    "a comma in a file name": Odd(Q + '"one, two.png",ill?,yes\n', [("one, two.png", "yes")]),
    "questions between semicolons": Odd(Q + "a.png,ill?;old?,yes;no\n", [("a.png", "yes", "no")]),
    "a semicolon in a sentence": Odd(Q + "a.png,ill; or not?,yes; very\n", [("a.png", "yes; very")]),
    "columns of questions": Odd("image,question1,answer1,question2,answer2\na.png,ill?,yes,old?,no\nb.png,ill?,no,,\n", [("a.png", "yes", "no"), ("b.png", "no")]),
    "more columns of questions than of answers": Odd("image,question1,question2,answer\na.png,x?,y?,no\n", error=r"columns of questions \(2\) and of answers \(1\)"),
    "more questions than answers": Odd("".join(json.dumps(r) + "\n" for r in [{"image": "a.png", "question": ["x?", "y?"], "answer": ["no"]}, {"image": "b.png", "question": "ill?", "answer": "no"}]), [("b.png", "no")], [(1, "answer", r"questions \(2\) and of answers \(1\) differ")], name="t.jsonl"),
    # Paths
    "absolute paths": Odd(lambda f: f"{Q}{f}/a.png,ill?,yes\n{f}/b.png,ill?,no\n", TWO),
    "paths of another machine": Odd(Q + "/mnt/old/a.png,ill?,yes\n/mnt/old/p1/x.png,ill?,no\n", [("a.png", "yes"), ("x.png", "no")]),
    "Windows paths": Odd(Q + "C:\\data\\scans\\a.png,ill?,yes\np1\\x.png,ill?,no\n", [("a.png", "yes"), ("x.png", "no")]),
    "a network path": Odd(Q + "\\\\server\\share\\a.png,ill?,yes\n", ONE),
    "dots that stay inside": Odd(Q + "p1/../a.png,ill?,yes\n./b.png,ill?,no\n", TWO),
    "dots that lead out": Odd(Q + "a.png,ill?,yes\n../../etc/passwd,ill?,no\n", ONE, [(3, "image", "leads out of")]),
    "an existing file elsewhere": Odd(Q + "a.png,ill?,yes\n/etc/hostname,ill?,no\n", ONE, [(3, "image", "lies outside|is not in")]),
    "addresses": Odd(Q + "a.png,ill?,yes\nhttps://example.org/b.png,ill?,no\n", ONE, [(3, "image", "is an address")]),
    "other capitals": Odd(Q + "A.PNG,ill?,yes\n", ONE),
    "no ending": Odd(Q + "a,ill?,yes\nb,ill?,no\n", TWO),
    "a name in subfolders": Odd(Q + "a.png,ill?,yes\ny.png,ill?,no\nx.png,ill?,no\n", [("a.png", "yes"), ("y.png", "no")], [(4, "image", "occurs 2 times")]),
    "missing files": Odd(Q + "a.png,ill?,yes\nz.png,ill?,no\n", ONE, [(3, "image", "'z.png' is not in")]),
    "no file exists": Odd(Q + "y1.png,ill?,yes\ny2.png,ill?,yes\n", error="none of its 2 rows can be used; the first one: row 2, column 'image': 'y1.png' is not in"),
    "2D, 3D and DICOM in one row": Odd(Q + "ct.nii.gz;a.png;series;cr.dcm,which?,all\n", [("ct.nii.gz", "a.png", "series", "cr.dcm", "all")]),
    "an array as NumPy prints it": Odd(Q + "\"['a.png' 'b.png']\",same?,no\n", [("a.png", "b.png", "no")]),
    "a tuple": Odd(Q + "\"('a.png', 'b.png')\",same?,no\n", [("a.png", "b.png", "no")]),
    "one image of several is missing": Odd(Q + "a.png;z.png,same?,no\nb.png,ill?,no\n", [("b.png", "no")], [(2, "image", "'z.png' is not in")]),
    # Ids, duplicates, splits
    "an image of two patients": Odd("image,question,answer,patient\na.png,ill?,yes,1\na.png,old?,no,2\n", ONE, [(3, "patient", "is '2', but row 2 says '1' about the same image")]),
    "only rows for testing": Odd("image,question,answer,split\na.png,q?,yes,test\nb.png,q?,no,test\n", TWO, check=lambda x: {s for _, s in split_of(x)} == {"test"}),
    "an image in two splits": Odd("image,question,answer,split\na.png,q?,yes,train\na.png,r?,no,test\n", [("a.png", "yes", "no")], note="in several splits", check=lambda x: {s for _, s in split_of(x)} == {"test"}),
    "numbers with more digits than a spreadsheet keeps": Odd(workbook(("s", [[*HEADER, "patient"], [*A, 1.2345678901234568e16]])), ONE, name="t.xlsx", check=lambda x: x.cases[0].patient.isdigit()),
    "numbers that Excel is to keep as text": Odd('image,question,answer,patient\na.png,q?,yes,"=""007"""\n', ONE, check=lambda x: x.cases[0].patient == "007"),
    "duplicate rows": Odd(PLAIN + "a.png,ill?,yes\n", TWO, note="1 row repeats an earlier one"),
    "several rows about an image": Odd(PLAIN + "a.png,old?,no\n", [("a.png", "yes", "no"), ("b.png", "no")], note="1 row"),
    "duplicate ids": Odd("id,image,question,answer\n1,a.png,ill?,yes\n1,b.png,ill?,no\n", ONE, [(3, "id", "is that of row 2 too")]),
    "two splits of a patient": Odd("image,question,answer,patient,split\na.png,q?,yes,1,train\nb.png,q?,no,1,test\n", TWO, note="1 patient is in several splits", check=lambda x: split_of(x) == {("1", "test")}),
    "spellings of splits": Odd("image,question,answer,set\na.png,q?,yes,Training\nb.png,q?,no,VAL\n", TWO, check=lambda x: {s for _, s in split_of(x)} == {"train", "validation"}),
    "an unknown split": Odd("image,question,answer,split\na.png,q?,yes,train\nb.png,q?,no,maybe\n", ONE, [(3, "split", "'maybe'")]),
    "folds as splits": Odd("image,question,answer,split\na.png,q?,yes,0\nb.png,q?,no,1\n", error="contains 0, 1, which are no splits"),
    # What spreadsheets and other programs do to tables
    "numbers that lost their zeros": Odd(Q + "7,ill?,yes\n008.png,ill?,no\n", [("0007.png", "yes"), ("08.png", "no")]),
    "numbers as fractions": Odd("image,question,answer,patient\n7.0,q?,yes,3.0\nb.png,q?,no,3\n", [("0007.png", "yes"), ("b.png", "no")], check=lambda x: {case.patient for case in x.cases} == {"3"}),
    "names in quotation marks": Odd(Q + '"""a.png""",ill?,yes\n \'b.png\',ill?,no\n', TWO),
    "marks without width": Odd(Q + "\u202aa.png,ill?,\u200byes\nb.png\ufeff,ill?,no\n", TWO),
    "control characters": Odd(Q + "a.png,ill?,ye\x07s\n", [("a.png", "ye s")]),
    "names as addresses": Odd(Q + "one%2C%20two.png,ill?,yes\nfile:///C:/x/a.png,ill?,no\n", [("one, two.png", "yes"), ("a.png", "no")]),
    "patterns": Odd(Q + "a.png,ill?,yes\np1/*.png,ill?,no\n", ONE, [(3, "image", "is a pattern")]),
    "a link that leads nowhere": Odd(Q + "a.png,ill?,yes\nlost.png,ill?,no\n", ONE, [(3, "image", "is not in")]),
    "a folder that is composed otherwise": Odd(Q + "ü/k.png,ill?,yes\n", [("k.png", "yes")]),
    "single quotation marks": Odd("'image','question','answer'\n'a.png','Is it \"x\", or not?','yes'\n'b.png','ill?','no'\n", TWO),
    "quotation marks with a backslash": Odd(Q + 'a.png,"Is it \\"big\\", or not?",yes\nC:\\\\b.png,ill?,no\n', TWO),
    "remarks in names of columns": Odd("image file (png),Question [text],Answer (free text)\na.png,ill?,yes\n", ONE),
    "comments above the header": Odd("# made by x, 2024\n# see the images\n" + PLAIN, TWO),
    "words around splits": Odd("image,question,answer,split\na.png,q?,yes,Training Set\nb.png,q?,no,val_data\nc.jpg,q?,no,Hold-out\n", [*TWO, ("c.jpg", "no")], check=lambda x: [c.split for c in x.cases] == ["train", "validation", "test"]),
    "a header that is repeated": Odd(PLAIN.partition("b.png")[0] + PLAIN, TWO, note="the header is repeated in 1 further row,", check=lambda x: "repeats an earlier one" in " ".join(x.notes)),
    "row numbers of R": Odd('"image","question","answer"\n"1","a.png","ill?","yes"\n"2","b.png","ill?","no"\n', TWO),
    "a table of Markdown": Odd("| image | question | answer |\n|---|---|---|\n| a.png | ill? | yes |\n", ONE, [(2, "image", "'---' is not in")]),
    "a web page": Odd("<!DOCTYPE html><html><body>Sign in</body></html>", error="is a web page, not a table"),
    "a very long name": Odd(Q + "a" * 100_000 + ".png,ill?,yes\nb.png,ill?,no\n", [("b.png", "no")], [(2, "image", r"^'a{200}\.\.\.' is not in")]),
    "a very long answer": Odd(Q + "a.png,ill?," + "word " * 20_000 + "\n", [("a.png", ("word " * 20_000).strip())]),
    # Other formats
    "JSON lines with commas": Odd("".join(json.dumps(dict(zip(HEADER, row, strict=True))) + ",\n" for row in (A, B)), TWO, name="t.jsonl"),
    "lines that are not JSON": Odd("{a}\n{b}\n", error="none of its 2 rows can be used; the first one: row 1: not readable as JSON", name="t.jsonl"),
    "images as datasets stores them": Odd(json.dumps([{"images": [{"path": "a.png", "bytes": None}, {"path": "b.png"}], "question": "same?", "answer": "no"}]), [("a.png", "b.png", "no")], name="t.json"),
    "images in the messages of a chat": Odd("".join(json.dumps({"messages": [{"role": "user", "content": [image, {"type": "text", "text": "ill?"}]}, {"role": "assistant", "content": [{"type": "text", "text": "yes"}]}]}) + "\n" for image in ({"type": "image", "image": "a.png"}, {"type": "image_url", "image_url": {"url": "b.png"}})), [("a.png", "yes"), ("b.png", "yes")], name="t.jsonl"),
    "an object as a patient": Odd("".join(json.dumps({**dict(zip(HEADER, row, strict=True)), "patient": patient}) + "\n" for row, patient in ((A, 7), (B, {"id": 7}))), ONE, [(2, "patient", "contains an object")], name="t.jsonl"),
    "an object as an answer": Odd(json.dumps([dict(zip(HEADER, A, strict=True)), {"image": "b.png", "question": "ill?", "answer": {"text": "no"}}]), ONE, [(2, "answer", "contains an object")], name="t.json"),
    "JSON with columns": Odd(json.dumps(dict(zip(HEADER, zip(A, B, strict=True), strict=True))), TWO, name="t.json"),
    "JSON as pandas writes it": Odd(json.dumps({n: {"0": a, "1": b} for n, a, b in zip(HEADER, A, B, strict=True)}), TWO, name="t.json"),
    "JSON with ids": Odd(json.dumps({"q1": dict(zip(HEADER, A, strict=True)), "q2": dict(zip(HEADER, B, strict=True))}), TWO, name="t.json"),
    "JSON with a list per split": Odd(json.dumps({"train": [dict(zip(HEADER, A, strict=True))], "test": [dict(zip(HEADER, B, strict=True))]}), TWO, name="t.json", check=lambda x: [c.split for c in x.cases] == ["train", "test"]),
    "JSON lines named JSON": Odd("".join(json.dumps(dict(zip(HEADER, row, strict=True))) + "\n" for row in (A, B)), TWO, name="t.json"),
    "JSON named JSON lines": Odd(json.dumps([dict(zip(HEADER, row, strict=True)) for row in (A, B)], indent=1), TWO, name="t.jsonl"),
    "JSON with a number": Odd("7", error="does not contain a list of records", name="t.json"),
    "chats": Odd(json.dumps([{"image": "a.png", "conversations": [{"from": "human", "value": "<image>\nill?"}, {"from": "gpt", "value": "yes"}]}, {"image": "b.png", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "ill?"}]}, {"role": "assistant", "content": "no"}]}]), TWO, name="t.json", check=lambda x: {t.question for c in x.cases for t in c.turns} == {"ill?"}),
    "a list of pairs": Odd(json.dumps([{"image": "a.png", "qa_pairs": [{"question": "x?", "answer": "yes"}, {"question": "y?", "answer": 2}]}, {"image": "b.png", "qa_pairs": [{"Question": "x?"}, {"Answer": "no"}]}]), [("a.png", "yes", "2")], [(2, "answer (chat)", "is empty although there is a question")], name="t.json"),
    "chats without an answer": Odd(json.dumps([{"image": "a.png", "conversations": [{"from": "human", "value": "ill?"}, {"from": "gpt", "value": "yes"}]}, {"image": "b.png", "conversations": [{"from": "human", "value": "ill?"}]}]), ONE, [(2, "answer (chat)", r"questions \(1\) and of answers \(0\)")], name="t.json"),
    "JSON lines": Odd("".join(json.dumps(dict(zip(HEADER, row, strict=True))) + "\n" for row in (A, B)), TWO, name="t.jsonl"),
    "a broken JSON line": Odd(json.dumps(dict(zip(HEADER, A, strict=True))) + "\n{\n[1]\n", ONE, [(2, "", "not readable as JSON"), (3, "", "not an object")], name="t.jsonl"),
    "gzip": Odd(gzip.compress(PLAIN.encode()), TWO, name="t.csv.gz"),
    "Excel": Odd(workbook(("s", [HEADER, A, B])), TWO, name="t.xlsx"),
    "Excel named csv": Odd(workbook(("s", [HEADER, A, B])), TWO),
    "Excel with an empty first sheet": Odd(workbook(("notes", [["made by"]]), ("s", [HEADER, A, B])), TWO, name="t.xlsx", note="sheet 's' of 2"),
    "Excel with a sheet per split": Odd(workbook(("train", [HEADER, A]), ("test", [HEADER, B])), TWO, name="t.xlsx", check=lambda x: {s for _, s in split_of(x)} == {"train", "test"}),
    "Excel with two tables": Odd(workbook(("x", [HEADER, A]), ("y", [HEADER, B])), error="all look like tables; choose one by --sheet", name="t.xlsx"),
    "Excel with a hidden sheet": Odd(workbook(("old", [HEADER, B]), ("s", [HEADER, A]), hidden="old"), ONE, name="t.xlsx"),
    "Excel with a formula that was never computed": Odd(workbook(("s", [[*HEADER, "length"], [*A, "=LEN(C2)"], ['=A3&".png"', "q?", "yes", 3], [*B, 2]])), TWO, [(3, "image", "is a formula without a saved result")], name="t.xlsx"),
    "Excel with nothing but such formulas": Odd(workbook(("s", [HEADER, ['=A3&".png"', "q?", "yes"]])), error="none of its 1 rows can be used; the first one: row 2, column 'image': is a formula without", name="t.xlsx"),
    "Excel with errors": Odd(workbook(("s", [HEADER, A, ["b.png", "ill?", "#DIV/0!"]])), ONE, [(3, "answer", "is empty")], name="t.xlsx"),
    "Excel with a header of two rows": Odd(workbook(("s", [["image", "Dialogue", None], [None, "question", "answer"], A]), merged="B1:C1 A1:A2"), ONE, name="t.xlsx"),
    "Excel with dates": Odd(workbook(("s", [HEADER, ["a.png", "when?", datetime.datetime(2024, 1, 5)]])), [("a.png", "2024-01-05")], name="t.xlsx"),
    "Excel with a chosen sheet": Odd(workbook(("x", [HEADER, A]), ("y", [HEADER, B])), [("b.png", "no")], name="t.xlsx", options=TableOptions(sheet="y")),
    "Excel with numbers that show zeros": Odd(workbook(("s", [[*HEADER, "patient"], [*A, 7]]), formats={"D2": "000"}), ONE, name="t.xlsx", check=lambda x: x.cases[0].patient == "007"),
    "Excel with merged patients": Odd(workbook(("s", [["patient", *HEADER], ["p", *A], [None, *B]]), merged="A2:A3"), TWO, name="t.xlsx", check=lambda x: {case.patient for case in x.cases} == {"p"}),
    "Excel with a password": Odd(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 9, error="is an Excel 97-2003 workbook, or protected by a password", name="t.xlsx"),
    "not Excel": Odd("PK", error="is not a readable Excel file", name="t.xlsx"),
    "old Excel": Odd("x", error="is not a table; give a .csv", name="t.xls"),
}  # fmt: skip


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_odd_table_gives_the_right_rows_or_one_clear_line_each(odd: Odd, images: Path, tmp_path: Path):
    content = odd.content(images) if callable(odd.content) else odd.content
    path = tmp_path / odd.name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    if odd.error:
        with pytest.raises(VividMedError, match=odd.error) as caught:
            read_table_listing(path, images, odd.options)
        assert str(path) in str(caught.value) or "--delimiter" in odd.error
        assert "\n" not in str(caught.value)
        return
    listing = read_table_listing(path, images, odd.options)
    assert [
        (*(image.path.name for image in case.images), *(turn.answer for turn in case.turns))
        for case in listing.cases
    ] == odd.rows
    assert [(row.row, row.column) for row in listing.refused] == [entry[:2] for entry in odd.refused]
    for row, (_, _, reason) in zip(listing.refused, odd.refused, strict=True):
        assert re.search(reason, row.reason), row.reason
        assert "\n" not in str(row)
    assert odd.note in " ".join(listing.notes)
    assert odd.check(listing)


def test_a_missing_table_and_a_missing_folder_are_named(tmp_path: Path):
    with pytest.raises(VividMedError, match="no such file"):
        read_table_listing(tmp_path / "none.csv", tmp_path)
    with pytest.raises(VividMedError, match=r"--images .*no such folder"):
        read_table_listing(tmp_path / "none.csv", tmp_path / "none")
