"""What a model needs to know of adapters: their settings, and how they are merged tensor by tensor."""
