"""Layer 3: a model behind HTTP, for programs (OpenAI's protocol, grounding, segmentation) and for people (a page)."""
