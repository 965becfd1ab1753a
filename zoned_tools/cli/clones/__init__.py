"""Drop-in replacements for the originals' programs; each a small package over one reader of option tables."""
