"""Labelled vectors judged: how near the same label lies, how far another one, and whether anything is left to tell."""
