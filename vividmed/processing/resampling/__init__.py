"""Changes of an image's grid: as the published system makes them, and enlargement to where a threshold is reached."""
