"""The sentence that every exported result carries."""

NOTICE = "Written by a model for research. Not for diagnosis."
