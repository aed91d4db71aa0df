"""Layer 3: studies out of a hospital's archive, results into it, by DICOMweb."""
