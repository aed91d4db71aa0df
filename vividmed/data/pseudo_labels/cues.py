"""Cues of negation, uncertainty and limited assessment in radiology reports, as regular expressions.

As in NegEx (Chapman et al., 2001) and ConText (Harkema et al., 2009), a cue reaches forwards (``BEFORE``: it stands before
what it is about) or backwards (``AFTER``), up to a word that ends its scope.
"""

import re

_NEGATED_BEFORE = (
    r"no(?!\s+(?:significant\s+|interval\s+|appreciable\s+|definite\s+|relevant\s+|substantial\s+)*"
    r"(?:change|increase|decrease|growth|progression|difference|improvement|longer\s+only)\b)",
    r"not\s+(?:have|show|demonstrate|contain|reveal|see|identify|visuali[sz]e)",
    r"(?:there\s+(?:is|are)\s+)?not\s+(?:a|an|any)",
    r"without(?!\s+(?:change|contrast))",
    r"absence\s+of",
    r"absent",
    r"lacks?",
    r"(?:negative|free)\s+(?:for|of)",
    r"clear\s+of",
    r"den(?:y|ies)",
    r"neither",
    r"nor",
    r"never",
    r"(?<!near-complete )(?<!partial )(?<!incomplete )(?:resolution|removal)\s+of",
    r"resolved",
    r"(?:has|have)\s+no",
    r"fails?\s+to\s+(?:show|reveal|demonstrate)",
    r"rul(?:es?|ed|ing)\s+out",
    r"exclud(?:es?|ed|ing)",
    r"no\s+longer\s+(?:see|any|an?)",
    r"rather\s+than",
    r"instead\s+of",
    r"mimic(?:s|king|ked)?",
    r"simulat(?:es?|ing)",
    r"(?:argues?|speaks?)\s+against",
    r"(?:there\s+)?(?:is|are)\s+devoid\s+of",
    r"(?:replaces?|replacing)\s+(?:the\s+)?(?:earlier|previous|prior|former)",
    r"status\s+post\s+(?:resection|removal)\s+of",
)
_NEGATED_AFTER = (
    r"(?:is|are|was|were)\s+(?:not|no\s+longer)\s+(?:\w+ly\s+)?(?:seen|identified|present|visuali[sz]ed|evident|noted|"
    r"demonstrated|detected|found|appreciated|visible|apparent|observed)",
    r"(?:is|are|was|were)\s+absent",
    r"(?:has|have)\s+(?:\w+ly\s+)?(?:resolved|cleared|disappeared)",
    r"(?:is|are|was|were)\s+(?:\w+ly\s+)?(?:resolved|ruled\s+out|excluded)",
    r"(?:not|no\s+longer)\s+(?:seen|identified|present|visuali[sz]ed|visible|evident|noted|detected|found)",
    r"cannot\s+be\s+(?:seen|identified|detected|found)",
    r"(?:is|are|was|were|has|have)\s+(?:\w+ly\s+)?(?:gone|vanished|disappeared|subsided)",
    r"none\s+(?:is|are|was|were)?\s*(?:seen|identified|present|found|visible|noted|detected)",
    r"(?:is|are|was|were)\s+negative(?!\s+for)",
    r"(?:is|are)\s+not\s+(?:\w+\s+)?(?:enlarged|dilated|widened|thickened)",
)
_UNCERTAIN_BEFORE = (
    r"possib(?:le|ly)",
    r"probab(?:le|ly)",
    r"potential(?:ly)?",
    r"likely",
    r"suspected",
    r"questionable",
    r"question\s+of",
    r"equivocal",
    r"(?:may|might|could)\s+(?:also\s+)?(?:represent|reflect|be|indicate|suggest|relate|correspond)",
    r"(?:suspicious|concerning|worrisome)\s+for",
    r"(?:concern|suspicion)\s+(?:for|of)",
    r"suggest(?:s|ing|ive|ed)?(?:\s+of)?",
    r"(?:cannot|can\s+not|can't|not)\s+(?:be\s+)?(?:entirely\s+|completely\s+)?(?:rule\s+out|exclude)",
    r"consistent\s+with\s+either",
    r"rule\s+out",
    r"differential\s+(?:diagnosis\s+)?(?:includes?|of)",
    r"presumed",
    r"appears?\s+to\s+be",
    r"favou?r(?:s|ing|ed)?",
    r"(?:it\s+is\s+)?(?:unclear|uncertain|unknown)\s+(?:whether|if)",
    r"whether",
    r"if",
    r"in\s+case\s+of",
    r"conceivabl[ey]",
    r"perhaps",
    r"differential\s+(?:diagnosis\s+)?(?:is|are|would\s+be)",
    r"evaluate\s+for",
    r"(?:raises?|raising)\s+(?:the\s+)?(?:concern|possibility|question|suspicion)\s+(?:for|of)",
)
_UNCERTAIN_AFTER = (
    r"(?:is|are|was|were|remains?)\s+(?:\w+ly\s+)?(?:possible|questionable|suspected|likely|considered|equivocal)",
    r"(?:cannot|can\s+not|can't|could\s+not|is\s+not|are\s+not|not)\s+(?:be\s+)?(?:\w+ly\s+)?(?:excluded|ruled\s+out)",
    r"(?:may|might|could)\s+be\s+(?:present|considered)",
    r"should\s+be\s+considered",
)
_UNASSESSED_BEFORE = (
    r"(?:limited|suboptimal|poor|incomplete|inadequate)\s+(?:evaluation|assessment|visuali[sz]ation)\s+(?:of|for)",
    r"(?:not|non-?)\s?-?(?:diagnostic|evaluable)\s+for",
    r"(?:insensitive|not\s+sensitive)\s+(?:for|to)",
    r"(?:cannot|can\s+not|could\s+not|unable\s+to)\s+(?:\w+ly\s+)?(?:assess|evaluate|comment\s+on)",
    r"(?:obscur|hid)(?:es?|ing)",
)
_UNASSESSED_AFTER = (
    r"(?:cannot|can\s+not|can't|could\s+not)\s+be\s+(?:\w+ly\s+)?(?:assessed|evaluated|judged|determined)",
    r"(?:is|are|was|were)\s+(?:\w+ly\s+)?(?:limited|obscured|nondiagnostic|non-diagnostic)",
    r"(?:is|are|was|were)\s+(?:not|incompletely|poorly|suboptimally|inadequately|partially)\s+(?:(?:well|fully|"
    r"adequately|completely|optimally|reliably|entirely|clearly)\s+)*(?:assessed|evaluated|included|imaged|covered)",
    r"(?:is|are|was|were)\s+not\s+(?:well|fully|adequately|completely|optimally|entirely)\s+"
    r"(?:seen|visuali[sz]ed|demonstrated|defined|delineated)",
    r"(?:is|are|was|were)\s+(?:poorly|suboptimally)\s+(?:seen|visuali[sz]ed|demonstrated|defined)",
    r"(?:is|are|lies?)\s+(?:outside|beyond)\s+(?:of\s+)?the\s+(?:field\s+of\s+view|scan|image)",
)
_UNCERTAIN_BOTH_WAYS = (r"versus", r"vs")
_ENDS = (
    r"but",
    r"however",
    r"although",
    r"though",
    r"except(?:\s+for)?",
    r"aside\s+from",
    r"apart\s+from",
    r"other\s+than",
    r"yet",
    r"nevertheless",
    r"which",
    r"because",
    r"due\s+to",
    r"secondary\s+to",
    r"(?<!whether )(?<!if )(?:there|this|these)\s+(?:is|are|was|were)",
    r"(?:is|are|was|were)\s+(?:noted|seen|present|identified)",
    r"and\s+(?:an?|the|there)",
    r"with(?!out\b)(?!\s+no\b)",
)


# In lists of findings: "Pneumothorax: none."
_NONE_AFTER_COLON = r":\s*(?:none|absent|negative|nil|no(?!\s+\w))\b"


def _alternatives(patterns: tuple[str, ...]) -> str:
    return "|".join(f"(?:{pattern})" for pattern in patterns)


CUES = re.compile(
    rf"\b(?:(?P<unassessed_after>{_alternatives(_UNASSESSED_AFTER)})"
    rf"|(?P<unassessed_before>{_alternatives(_UNASSESSED_BEFORE)})"
    rf"|(?P<uncertain_both>{_alternatives(_UNCERTAIN_BOTH_WAYS)})"
    rf"|(?P<uncertain_after>{_alternatives(_UNCERTAIN_AFTER)})|(?P<absent_after>{_alternatives(_NEGATED_AFTER)})"
    rf"|(?P<uncertain_before>{_alternatives(_UNCERTAIN_BEFORE)})|(?P<absent_before>{_alternatives(_NEGATED_BEFORE)})"
    rf"|(?P<end>{_alternatives(_ENDS)}))\b|(?P<absent_after_colon>{_NONE_AFTER_COLON})|(?P<stop>[;:])",
    re.IGNORECASE,
)
"""All cues of a sentence. The group that matched is named for the status and for its direction; ``end`` and ``stop`` end a scope."""
