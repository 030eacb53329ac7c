"""How models are saved in files and loaded."""
