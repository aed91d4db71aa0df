"""Phrases of the text and where they are: states, forms and segmentation."""
