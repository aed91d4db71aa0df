"""Image and prompts in, masks or instance boxes out."""
