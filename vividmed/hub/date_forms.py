"""Written forms of dates finer than the year, as regular expressions that match in linear time."""

import re

# English, German, French, Spanish, Italian, Portuguese and Dutch; full names and the usual short forms.
_MONTHS = [
    "january",
    "februar(?:y|i)?",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
    "jan",
    "feb",
    "mar",
    "apr",
    "jun",
    "jul",
    "aug",
    "sept?",
    "oct",
    "nov",
    "dec",
    "januar",
    "märz",
    "maerz",
    "mai",
    "juni",
    "juli",
    "oktober",
    "dezember",
    "mrz",
    "okt",
    "dez",
    "janvier",
    "février",
    "fevrier",
    "mars",
    "avril",
    "juin",
    "juillet",
    "août",
    "aout",
    "septembre",
    "octobre",
    "novembre",
    "décembre",
    "decembre",
    "enero",
    "febrero",
    "marzo",
    "abril",
    "mayo",
    "junio",
    "julio",
    "agosto",
    "septiembre",
    "octubre",
    "noviembre",
    "diciembre",
    "gennaio",
    "febbraio",
    "aprile",
    "maggio",
    "giugno",
    "luglio",
    "settembre",
    "ottobre",
    "dicembre",
    "janeiro",
    "fevereiro",
    "março",
    "marco",
    "maio",
    "junho",
    "julho",
    "setembro",
    "outubro",
    "novembro",
    "dezembro",
    "januari",
    "maart",
    "mei",
    "augustus",
]
_MONTH = rf"(?i:{'|'.join(sorted(_MONTHS, key=len, reverse=True))})"
# "May", "Mars" and the short forms are ordinary words unless a year or an ordinal stands with them.
_LONG_MONTH = (
    r"(?:January|February|March|April|June|July|August|September|October|November|December"
    r"|Januar|Februar|März|Juni|Juli|Oktober|Dezember|janvier|février|avril|juillet|août|octobre|décembre)"
)
_YEAR = r"(?:19|20)\d\d"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_TWO_DIGIT_DAY = r"(?:0[1-9]|[12]\d|3[01])"
_TWO_DIGIT_MONTH = r"(?:0[1-9]|1[0-2])"
_MONTH_NUMBER = r"(?:0?[1-9]|1[0-2])"
_ORDINAL = r"(?:st|nd|rd|th|er|º|ª|\.)?"
_GAP = r"[ ,.]{0,2}(?:de[l]? )?"
_NO_UNIT = r"(?![\d/]|\.\d|\s{0,3}(?:mm|cm|ml|m[gG]y|HU|%)\b)"

DATE_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        # 2019-03-14, 2019/3/14, 2019_03_14, 2019.03.14, and 2019:03:14 of EXIF
        rf"(?<![\d.:]){_YEAR}([-/_.:]){_MONTH_NUMBER}\1{_DAY}(?!\d|\.\d)",
        # 14.03.2019, 3/14/2019, 14-03-2019
        rf"(?<![\d./_-])(?:{_DAY}([-/._ ]){_MONTH_NUMBER}\1|{_MONTH_NUMBER}([-/._ ]){_DAY}\2){_YEAR}(?![\d./-]\d|\d)",
        # 20190314, 20190314101500.0, 20190314T1015
        rf"(?<![0-9a-f.]){_YEAR}{_TWO_DIGIT_MONTH}{_TWO_DIGIT_DAY}(?![0-9a-f])",
        rf"(?<![0-9a-f.]){_YEAR}{_TWO_DIGIT_MONTH}{_TWO_DIGIT_DAY}(?:[01]\d|2[0-3])[0-5]\d(?:[0-5]\d)?(?![0-9a-f])",
        # on 3/14/19, vom 14.3.19, dob: 14-3-58
        rf"\b(?i:dated|date|on|from|since|of|to|born|birth|dob|exam|study|vom|am|seit|geb|le|du|né|née|dal|del)\b"
        rf"[:.]?\s{{1,3}}(?:{_DAY}([/.-]){_MONTH_NUMBER}\1|{_MONTH_NUMBER}([/.-]){_DAY}\2)'?\d\d{_NO_UNIT}",
        # 03/14/19, 14/03/19
        rf"(?<![\d./-])(?:{_TWO_DIGIT_DAY}/{_TWO_DIGIT_MONTH}|{_TWO_DIGIT_MONTH}/{_TWO_DIGIT_DAY})/\d\d{_NO_UNIT}",
        # 14 March 2019, 14th of March, 2019, 12-MAY-2019, 14MAR2019, 14. März 2019, 14 de marzo de 2019
        rf"(?<![\d.]){_DAY}{_ORDINAL}[ /_-]{{0,2}}(?:of |de )?{_MONTH}\.?(?:[-/_]|{_GAP}){_YEAR}(?!\d)",
        # 12-May-19, 14MAR19
        rf"(?<![\w.]){_DAY}[-/]?{_MONTH}[-/]?\d\d(?!\w|\.\d)",
        # March 14, 2019, Mar-14-2019, 2019 March 14, 2019-Mar-14
        rf"(?<![^\W\d_]){_MONTH}\.?[ /_-]{_DAY}{_ORDINAL},?[ /_-]{_YEAR}(?!\d)",
        rf"(?<![\d.]){_YEAR}[ /_-]{_MONTH}\.?[ /_-]{_DAY}(?!\d)",
        # October 3, 3 October
        rf"\b{_LONG_MONTH} {_DAY}{_ORDINAL}{_NO_UNIT}",
        rf"(?<![\d.]){_DAY}{_ORDINAL} (?:of )?{_LONG_MONTH}\b",
        # 2019年3月14日, 2019년 3월 14일
        rf"{_YEAR} ?[年년] ?{_MONTH_NUMBER} ?[月월] ?{_DAY} ?[日일]",
    )
)
