"""NRI plugin."""
