"""Layer 3: using a trained model on reports and phrases that the user gives, and at full resolution."""
