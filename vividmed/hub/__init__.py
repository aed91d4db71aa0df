"""Layer 3: what is shown to others on the Hub."""
