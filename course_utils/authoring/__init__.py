"""Tools for authors and for `make`: build chapters from their sources, run them, open them."""
