"""Thin typer programs: parse, call, print, exit. No format knowledge."""
