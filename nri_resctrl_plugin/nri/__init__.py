"""NRI over ttrpc."""
