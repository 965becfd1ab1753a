"""Rendering of findings, zone tables and maps: text, JSON, CSV, SVG."""
