"""Photographs and stored images."""
