r"""Cues of negation, uncertainty and limited assessment in radiology reports, as regular expressions.

As in NegEx (Chapman et al., 2001) and ConText (Harkema et al., 2009), a cue reaches forwards (``BEFORE``: it stands before
what it is about) or backwards (``AFTER``), up to a word that ends its scope. Pseudo-cues (``no change``, ``not only``,
``without doubt``) contain a cue and negate nothing. The verb phrases are composed from auxiliaries, adverbs and participles,
so that *is not seen*, *could no longer be clearly identified* and *has since been removed* need no entry of their own.
"""

import re


def _any(*patterns: str) -> str:
    return f"(?:{'|'.join(patterns)})"


_ADVERBS = r"(?:(?:\w+ly|also|now|since|again|still|yet|ever|well|quite|very|at\s+all)\s+)*"
_PARTLY = _any(
    "almost", "nearly", "nearly-completely", "near-completely", "partly", "partially", "largely", "mostly", "mainly",
    "incompletely", "substantially", "significantly", "considerably", "virtually", "practically",
)  # fmt: skip
_IS = _any(
    r"(?:has|have|had)\s+(?:\w+ly\s+|since\s+|now\s+|also\s+)*been",
    "is",
    "are",
    "was",
    "were",
    "be",
    "been",
    "being",
)
_CAN_BE = r"(?:can|could|may|might)\s+be"
_NOT = _any("not", r"no\s+longer", "never", r"\w+n['’]t", "cannot", r"can\s+not")
_SEEN = _any(
    "seen", "identified", "present", r"visuali[sz]ed", "evident", "noted", "demonstrated", "detected", "found",
    "appreciated", "visible", "apparent", "observed", "confirmed", "verified", "reproduced", "shown", "encountered",
    "documented", r"recogni[sz]ed", "recognizable", "discerned", "discernible", "detectable", "depicted", "suspected",
    r"made\s+out", "established", "there", "palpable", "perceptible", "reported", "imaged", "discovered", "delineated", "demonstrable",
    r"in\s+(?:place|situ)", r"\w+[aei]ble",
)  # fmt: skip
_GONE = _any(
    "resolved", "cleared", "disappeared", "vanished", "subsided", "gone", "absent", "removed", "resected", "excised",
    "evacuated", "extracted", "withdrawn", r"normali[sz]ed", "drained", r"ruled\s+out", "excluded", "lacking", "missing",
    "invisible", "undetectable", "resorbed", "abated", "faded", "dissolved",
)  # fmt: skip
_SHOW = _any(
    "have", "show", "demonstrate", "contain", "reveal", "see", "identify", r"visuali[sz]e", "find", "detect", "depict",
    "display", "exhibit", "disclose", "confirm", "support", "represent", "reflect", "indicate", "suggest", r"recogni[sz]e",
    "appreciate", "observe", "mean", "discern", "harbou?r", "feature", "note",
)  # fmt: skip
_STAY = _any("persist", "recur", "remain", "reappear", "occur", "exist", "reaccumulate", "appear(?!\\s+to)")
_STAYED = _any(
    "persisted", "recurred", "remained", "reappeared", "occurred", "reaccumulated", "developed", "appeared"
)

_PSEUDO = (
    r"(?:no|without|beyond)\s+(?:any\s+)?(?:doubt|question)(?:\s+(?:about|that|of))?",
    r"no\s+longer\s+only",
    r"no\s+(?:more|larger|bigger|greater|smaller|less|fewer|later|earlier|sooner)\s+than",
    r"not\s+(?:only|just|merely|solely|simply|exclusively|necessarily|much|without|uncommon|unusual|unexpected)",
    r"without\s+(?:(?:\w+\s+)?(?:contrast|comparison)|(?:a\s+|the\s+)?(?:prior|previous|earlier)\s+\w+|difficulty|complication)",
    rf"not\s+{_ADVERBS}(?:free|clear|devoid|absent)(?:\s+(?:for|of|from))?",
    rf"{_NOT}\s+(?:been\s+)?{_ADVERBS}(?:been\s+)?{_any('resolved', 'cleared', 'disappeared', 'vanished', 'subsided', 'gone')}",
    rf"{_any('not', 'nor')}\s+(?:been\s+)?{_ADVERBS}{_any('removed', 'resected', 'evacuated', 'drained', 'missing', 'lacking')}",
    rf"(?:(?:{_IS}|has|have|had)\s+)?{_PARTLY}(?:\s+completely)?\s+{_GONE}",
    r"(?:near-complete|nearly\s+complete|partial|incomplete|some)\s+(?:resolution|removal|clearing|clearance)\s+of",
    rf"not\s+(?:all\s+of|the\s+case\s+that)\s+[^.,;:]{{0,40}}?\s(?:{_IS}|has|have)\s+{_ADVERBS}{_GONE}",
    # What was not there before is there now.
    rf"(?:(?:{_IS}|has|have)\s+)?not\s+(?:been\s+)?{_ADVERBS}{_SEEN}\s+(?:(?:previously|before|earlier|then|yesterday|initially|(?:\w+\s+){{1,2}}ago|last\s+\w+)\b|(?:on|in|at)\s+(?:the\s+|any\s+|that\s+)?"
    r"(?:prior|previous|earlier|last|older?|comparison|time)\b)",
)
_UNCHANGED = (
    r"(?:no|without)\s+(?:(?:significant|interval|appreciable|definite|relevant|substantial|further|new|major|measurable|"
    r"notable|much)\s+)*(?:changes?|increase|decrease|growth|progression|difference|improvement|enlargement|reduction|worsening|"
    r"regression)\b(?:\s+(?:in|of|to|from))?",
)
_NEGATED_BEFORE = (
    "no",
    rf"(?:not|\w+n['’]t|cannot)\s+{_ADVERBS}{_SHOW}",
    r"(?:there\s+(?:is|are)\s+)?not\s+(?:an?|any|consistent\s+with|compatible\s+with|in\s+keeping\s+with|typical\s+of|"
    r"suggestive\s+of|associated\s+with|accompanied\s+by|indicative\s+of|diagnostic\s+of|suspicious\s+for|because\s+of|due\s+to)",
    r"(?:inconsistent|incompatible)\s+with",
    "without",
    r"(?:not\s+(?:enough|sufficient)|insufficient)\s+(?:evidence|signs?)\s+(?:of|for)",
    r"nothing(?!\s+(?:but|except|other))",
    r"none\s+of",
    r"absence\s+of",
    r"absent(?:\s+(?:is|are))?",
    r"(?:gone|missing|lacking)(?:\s+(?:is|are))?",
    "lacks?",
    r"(?:negative|free|clear|devoid)\s+(?:for|of|from)",
    r"den(?:y|ies|ied)",
    "neither",
    "nor",
    "never",
    r"(?:resolution|removal|resection|disappearance|evacuation|excision|exclusion|clearance|clearing)\s+of",
    r"resolved",
    r"(?:has|have)\s+no",
    rf"(?:fail(?:s|ed|ure)?|unable)\s+to\s+{_SHOW}",
    r"rul(?:es?|ed|ing)\s+out",
    r"exclud(?:es?|ed|ing)",
    r"no\s+longer\s+(?:see|any|an?)",
    r"rather\s+than",
    r"instead\s+of",
    r"(?:mistaken|confused|misread)\s+(?:for|as|with)",
    r"mimic(?:s|king|ked)?",
    r"simulat(?:es?|ing)",
    r"(?:argu(?:es?|ing)|speak(?:s|ing)?|evidence)\s+against",
    r"(?:what|which|formerly|initially)\s+(?:was|were|had\s+been)\s+(?:called|read\s+as|described\s+as|interpreted\s+as|"
    r"reported\s+as|taken\s+for|thought\s+to\s+be)",
    r"(?:hardly|scarcely)\s+any",
    r"non-?visuali[sz]ation\s+of",
    r"(?:were|had)\s+there\s+(?:been\s+)?(?:an?|any)",
    r"(?:replaces?|replacing|has\s+replaced|have\s+replaced)\s+(?:the\s+)?(?:earlier|previous|prior|former)",
    r"status\s+post\s+(?:resection|removal|excision)\s+of",
)
_NEGATED_AFTER = (
    rf"(?:{_IS}|{_any('appears?', 'seems?', 'remains?')})\s+{_NOT}\s+{_ADVERBS}(?:being\s+)?{_SEEN}",
    rf"(?:{_IS}|{_any('appears?', 'seems?', 'remains?')})\s+{_ADVERBS}{_GONE}",
    rf"(?:{_CAN_BE}|(?:can|could)\s+{_ADVERBS}be)\s+{_ADVERBS}(?:excluded|ruled\s+out)",
    rf"(?:has|have|had)\s+{_ADVERBS}{_GONE}",
    rf"(?:has|have|had)\s+(?:not|never)\s+{_ADVERBS}(?:been\s+{_ADVERBS}{_SEEN}|{_STAYED})",
    rf"(?:do|does|did)(?:\s+not|n['’]t)\s+{_ADVERBS}{_STAY}",
    rf"no\s+longer\s+{_ADVERBS}(?:persists?|exists?|appears?)",
    rf"{_NOT}\s+(?:{_IS}\s+)?{_ADVERBS}{_SEEN}(?:\s+any\s?more)?",
    rf"(?:cannot|can\s+not|could\s+not|can['’]t|couldn['’]t)\s+(?:any\s+longer\s+)?be\s+{_ADVERBS}{_SEEN}",
    rf"(?:can|could)\s+no\s+longer\s+be\s+{_ADVERBS}{_SEEN}",
    rf"{_any('since', 'now', 'completely', 'fully', 'entirely', 'meanwhile')}\s+{_GONE}",
    rf"none\s+(?:{_IS})?\s*(?:seen|identified|present|found|visible|noted|detected)",
    rf"{_IS}\s+negative(?!\s+for)",
    rf"{_IS}\s+not\s+(?:an?|the)\s+(?:\w+\s+)?(?:feature|finding|issue|concern)",
    r"(?:has|have)\s+given\s+way\s+to",
    r"(?:has|have|had|shows?)\s+no\s+(?:\w+\s+)?correlate",
    rf"(?:{_IS}|has|have)\s+(?:been\s+)?replaced\s+by",
    # "The catheter is out."
    rf"{_IS}\s+(?:now\s+)?out(?=\s*(?:[.,;)]|$))",
    # "An aneurysm is not."
    rf"(?:{_IS}|do|does|did)\s+not(?=\s*(?:[.;)]|$))",
    # Telegraphic style: "Drain removed."
    r"(?:removed|resolved|cleared|resected|excised|evacuated|extracted|withdrawn)"
    r"(?=\s*(?:[.,;)]|$|(?:since|in\s+the\s+(?:interval|meantime))\b))",
)
_UNCERTAIN_BEFORE = (
    r"(?:no\s+(?:\w+\s+)?)?evidence\s+for\s+or\s+against",
    r"possib(?:le|ly(?:\s+with)?|ility\s+of)",
    r"probab(?:le|ly(?:\s+with)?)",
    r"potential(?:ly)?",
    r"(?:un)?likely(?:\s+with)?",
    r"less\s+likely",
    "suspected",
    "questionable",
    r"(?<!in\s)question(?:\s+of)?",
    "equivocal",
    r"(?:may|might|could)\s+(?:also\s+|still\s+|\w+ly\s+)?(?:represent|reflect|be|indicate|suggest|relate|correspond|hide|mask|obscure|"
    r"conceal|mimic|simulate|harbou?r)",
    r"(?:suspicious|concerning|worrisome)\s+for",
    r"(?:concern|suspicion)\s+(?:for|of)",
    r"suggest(?:s|ing|ive|ed)?(?:\s+of)?",
    rf"(?:cannot|can\s+not|can['’]t|could\s+not|not|(?:difficult|hard|impossible)\s+to|not\s+(?:allow|permit|possible\s+to))\s+(?:be\s+)?{_ADVERBS}(?:rule\s+out|exclude)",
    r"(?:(?:in\s+order\s+)?to|please)\s+(?:rule\s+out|exclude)",
    r"consistent\s+with\s+either",
    r"rule\s+out",
    r"differential\s+(?:diagnosis\s+)?(?:includes?|of|is|are|would\s+be)",
    "presumed",
    r"appears?\s+to\s+be",
    r"favou?r(?:s|ing|ed)?",
    r"(?:it\s+(?:is|remains)\s+)?(?:unclear|uncertain|unknown|doubtful|questionable|not\s+(?:\w+ly\s+)?(?:clear|certain|sure|known))\s+"
    r"(?:whether|if|that)",
    "whether",
    "if",
    r"in\s+case\s+of",
    r"conceivabl[ey]",
    r"statistically(?:\s+(?:most\s+)?likely)?",
    r"(?:more|most|less)\s+sensitive\s+(?:for|to)",
    r"nor\s+can(?=[^.;]{0,60}\bdismissed)",
    "perhaps",
    r"than\s+(?:with|for|of)",
    r"evaluate\s+for",
    r"(?:raises?|raising)\s+(?:the\s+)?(?:concern|possibility|question|suspicion)\s+(?:for|of)",
)
# "No pneumonia is suspected" is a denial.
_WEAKLY_UNCERTAIN_AFTER = (
    rf"(?:{_IS}|remains?|seems?|appears?)\s+(?:not\s+(?=\w+ly\b|likely))?{_ADVERBS}(?:(?:thought|considered|felt|deemed)\s+(?:to\s+be\s+)?)?"
    r"(?:possible|questionable|suspected|considered|equivocal|conceivable|(?:more\s+|less\s+|most\s+)?probable|favou?red(?!\s+over)|doubtful|improbable|"
    r"(?:(?:very|less|more|most|quite)\s+)?(?:un)?likely(?=\s*(?:[.,;)]|$|(?:and|but|given|because|in|on|at|here|as)\b)))"
    r"(?!\s+that\b)",
    rf"(?:{_IS}|remains?)\s+(?:an?|the|one|another)\s+(?:[\w-]+\s+){{0,3}}"
    r"(?:alternative|consideration|possibility|concern|diagnosis|explanation|differential)",
)
_UNCERTAIN_AFTER = (
    r"favou?red(?=\s*(?:[.,;)]|$))",
    r"until\s+proven\s+otherwise",
    rf"(?:cannot|can\s+not|could\s+not)\s+be\s+{_ADVERBS}diagnosed",
    r"(?:less\s+likely|unlikely|improbable)(?=\s*(?:[.,;)]|$|(?:given|because)\b))",
    rf"(?:cannot|can\s+not|can['’]t|could\s+not|{_IS}\s+not|not)\s+(?:be\s+)?{_ADVERBS}(?:excluded|ruled\s+out|dismissed|disproved)",
    r"(?:may|might|could)\s+(?:\w+ly\s+|also\s+|still\s+)?be\s+(?:\w+ly\s+)?(?:present|considered|hidden|missed|occult|obscured|"
    r"overlooked|masked|concealed|there|undetected)",
    rf"(?:{_IS}\s+)?{_NOT}\s+(?:\w+ly\s+)?{_SEEN},?\s+(?:but|although|though|yet)\s+(?:(?:it|they|this)\s+)?(?:cannot|can\s+not|could\s+not|not)\s+"
    rf"(?:be\s+)?{_ADVERBS}(?:excluded|ruled\s+out)",
    r"to\s+be\s+(?:\w+ly\s+)?(?:excluded|ruled\s+out)",
    rf"(?:{_IS}|remains?)\s+(?:(?:also|still|both|all)\s+)?in\s+the\s+differential(?:\s+diagnosis)?",
    rf"{_NOT}\s+(?:be\s+)?{_ADVERBS}(?:distinguished|differentiated|told)(?:\s+apart)?\s+from",
    r"indistinguishable\s+from",
    r"would\s+(?:not\s+|\w+ly\s+)*be",
    rf"(?:may|might)\s+not\s+be\s+{_ADVERBS}{_SEEN}",
    r"should\s+be\s+(?:\w+ly\s+)?(?:considered|excluded|ruled\s+out)",
    rf"(?:{_IS}|remains?)\s+(?:difficult|hard|impossible)\s+to\s+(?:exclude|rule\s+out)",
    r"(?:can|may|might|could)\s+(?:\w+ly\s+)?(?:escape|evade|exist|coexist|persist|go\s+un\w+|remain\s+un\w+)",
    r"(?:can|may|might|could)\s+be\s+(?:\w+ly\s+)?(?:occult|hidden|missed|overlooked)",
)
_UNASSESSED_BEFORE = (
    r"(?:limited|suboptimal|poor|incomplete|inadequate)\s+(?:evaluation|assessment|visuali[sz]ation)\s+(?:of|for)",
    r"(?:limit(?:s|ed|ing)?|preclud(?:es?|ed|ing)|hinder(?:s|ed|ing)?|degrad(?:es?|ed|ing))\s+(?:the\s+)?"
    r"(?:evaluation|assessment|detection|visuali[sz]ation)\s+(?:of|for)",
    r"mak(?:es?|ing)\s+(?:the\s+)?(?:detection|assessment|exclusion|evaluation)\s+of",
    r"(?:not|non-?)\s?-?(?:diagnostic|evaluable)\s+for",
    r"(?:insensitive|not\s+sensitive)\s+(?:for|to)",
    r"(?:cannot|can\s+not|could\s+not|unable\s+to)\s+(?:\w+ly\s+)?(?:assess|evaluate|comment\s+on)",
    r"(?:obscur|hid)(?:es?|ing)",
)
_UNASSESSED_AFTER = (
    r"(?:cannot|can\s+not|can['’]t|could\s+not)\s+be\s+(?:\w+ly\s+)?(?:assessed|evaluated|judged|determined)",
    rf"{_IS}\s+(?:\w+ly\s+)?(?:limited(?!\s+to\b)|obscured|nondiagnostic|non-diagnostic)",
    rf"{_IS}\s+(?:not|incompletely|poorly|suboptimally|inadequately|partially|partly|only\s+partly|only\s+partially)\s+(?:(?:well|fully|"
    r"adequately|completely|optimally|reliably|entirely|clearly)\s+)*(?:assessed|evaluated|included|imaged|covered)",
    rf"{_IS}\s+not\s+(?:well|fully|adequately|completely|optimally|entirely|clearly)\s+"
    r"(?:seen|visuali[sz]ed|demonstrated|defined|delineated)",
    r"not\s+(?:clearly|well|fully)\s+(?:seen|visuali[sz]ed|visible)",
    rf"{_IS}\s+(?:poorly|suboptimally)\s+(?:seen|visuali[sz]ed|demonstrated|defined)",
    r"(?:is|are|lies?)\s+(?:outside|beyond)\s+(?:of\s+)?the\s+(?:field\s+of\s+view|scan|image)",
)
_UNCERTAIN_BOTH_WAYS = ("versus", "vs", r"favou?red\s+over", r"if\s+(?:any|present|real|there|at\s+all)")
# "Fibrosis is absent, as is honeycombing."
_LIKEWISE = rf"(?:as|so)\s+{_IS}"
_ENDS = (
    "but", "however", "although", "though", r"except(?:\s+for)?", r"aside\s+from", r"apart\s+from", r"other\s+than", "yet",
    "nevertheless", "nonetheless", "which", "because", r"due\s+to", r"secondary\s+to", "while", "whilst", "whereas", "despite",
    r"in\s+spite\s+of", r"so\s+that", "unless",
    r"(?<!whether )(?<!if )(?:there|this|these)\s+(?:is|are|was|were)",
    rf"{_IS}\s+{_ADVERBS}(?:noted|seen|present|identified|found|visible|detected|evident|demonstrated)",
    r"and\s+(?:an?|the|there)",
    r"with(?!out\b)(?!\s+no\b)",
)  # fmt: skip
# A second predicate of the same subject, or a clause with a subject of its own, ends what a negation says forwards.
_VERBS = _any(
    "shows?", "demonstrates?", "reveals?", "contains?", "has", "have", "measures?", "remains?", "persists?", "appears?",
    rf"(?:is|are|was|were)(?!\s+{_ADVERBS}{_SEEN})",
)  # fmt: skip
_ENDS_FORWARDS = (
    rf"and(?=\s+(?:most\s+)?(?:\w+ly\s+)?{_VERBS}\b)",
    # "No pneumothorax and little effusion."
    r"and(?=\s+(?:an?\s+)?(?:little|some|trace|minimal|mild|moderate|tiny|stable|unchanged|persistent|improv\w+|worsen\w+|"
    r"increas\w+|decreas\w+)\b)",
)
_NEW_CLAUSE = rf"and(?=\s+(?!no\b|nor\b)(?:[a-z-]+\s+){{1,3}}{_VERBS}\b)"
# A transitive verb: what is said after its object is not about its subject.
_ENDS_BACKWARDS = (r"(?:makes?|renders?|shows?|reveals?|contains?|demonstrates?)",)
_CLAUSE = r",(?=\s+(?:it|there|we|this|that|these|those|one\s+of|however)\b)"

# "And" before another predicate of the same subject is no border.
_AND = r"and(?!\s+(?:\w+ly\s+)?(?:not|never|no\s+longer|cannot|is|are|was|were|has|have|can|could)\b)"

# In lists of findings: "Pneumothorax: none."
_NONE_IN_LIST = r"\s*(?:[:=(?]|\s[–—-]\s)\s*(?:none|absent|negative|nil|no(?!\s+\w)|not\s+(?:seen|present|on|in|at|here|today))\b"
# A clause about the subject: "the nodule, which was suspected on the radiograph, is not confirmed".
_ASIDE = rf",\s+(?:which|who)\s+[^.,;:]{{0,60}},(?=\s+(?:{_IS}|has|have|had|can|could|cannot|does|do|did)\b)"
# "Not seen: pneumothorax, effusion."
_NONE_OF_LIST = rf"\b(?:no|none|negative|absent|(?:{_IS}\s+)?not\s+{_SEEN})\s*:"

CUES = re.compile(
    rf"(?P<absent_before_list>{_NONE_OF_LIST})|\b(?:(?P<unchanged>{_any(*_UNCHANGED)})|(?P<pseudo>{_any(*_PSEUDO)})"
    rf"|(?P<unassessed_after>{_any(*_UNASSESSED_AFTER)})"
    rf"|(?P<unassessed_before>{_any(*_UNASSESSED_BEFORE)})"
    rf"|(?P<likewise>{_LIKEWISE})|(?P<uncertain_both>{_any(*_UNCERTAIN_BOTH_WAYS)})"
    rf"|(?P<uncertain_after_weakly>{_any(*_WEAKLY_UNCERTAIN_AFTER)})"
    rf"|(?P<uncertain_after>{_any(*_UNCERTAIN_AFTER)})|(?P<absent_after>{_any(*_NEGATED_AFTER)})"
    rf"|(?P<uncertain_before>{_any(*_UNCERTAIN_BEFORE)})|(?P<absent_before>{_any(*_NEGATED_BEFORE)})"
    rf"|(?P<end>{_any(*_ENDS)})|(?P<end_forwards>{_any(*_ENDS_FORWARDS)})|(?P<new_clause>{_NEW_CLAUSE})"
    rf"|(?P<end_backwards>{_any(*_ENDS_BACKWARDS)})|(?P<joined>{_AND}))\b"
    rf"|(?P<absent_after_list>{_NONE_IN_LIST})|(?P<aside>{_ASIDE})|(?P<open>\()|(?P<close>\))|(?P<clause>{_CLAUSE})"
    r"|(?P<after_front>,(?=\s+(?:the|an?)\b))"
    r"|(?P<comma>,)|(?P<stop>[;:]|\s[–—-]\s)",
    re.IGNORECASE,
)
"""All cues of a sentence. The group that matched is named for the status and for its direction; the others end a scope or,
``pseudo``, do nothing."""

DENIED = re.compile(
    r"\b(?:not|rather\s+than|instead\s+of)\s+(?:(?:likely|really|yet|an?|the|any)\s+)?$", re.IGNORECASE
)
"""Words directly before a phrase that is ruled out: *atelectasis, not consolidation*."""

PRESUPPOSED = re.compile(
    r"\b(?:adjacent\s+to|next\s+to|close\s+to|near|around|beside|behind|surround(?:s|ing)?|abut(?:s|ting)?|compress(?:es|ing)?|"
    r"within|inside|along|in\s+the\s+(?:region|area|vicinity|bed|setting)\s+of|component\s+of|part\s+of|size\s+of|extent\s+of|"
    r"whether|if|that|in)\s+the\s+(?:previously\s+)?(?:known\s+|described\s+)?$"
    r"|\b(?:none|neither|some|most|all)\s+of\s+(?:the|these|those)\s+(?:\w+\s+)?$",
    re.IGNORECASE,
)
"""Words directly before a phrase that the sentence presupposes: *no edema around the metastasis*."""

PART_OF_STRUCTURE = re.compile(
    r"(?<!absence)(?<!agenesis)(?<!resection)(?<!removal)(?<!excision)(?<!evidence)(?<!visualization)(?<!part)(?<!sign)"
    r"\s+(?:of|to|from|involving)\s+(?:the\s+|either\s+|both\s+)?"
    r"(?:(?:[a-z-]+\s+)?[a-z-]+(?:,\s+(?:and\s+|or\s+)?|\s+(?:and|or)\s+)(?:the\s+)?){0,4}$",
    re.IGNORECASE,
)
"""Words directly before a structure of which something is denied: *no hydronephrosis of the left kidney*."""
