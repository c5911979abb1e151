"""Converters of public originals: a module for each, and a registry with source and licence.

A module's docstring gives the rules by which rows become records. Its `convert(path, dropped)`
yields records of the data contract, and counts in `dropped` what it leaves out, by reason: while
records are drawn, or before the first where all are compared (:mod:`.comparisons`). A file may be
plain, `.gz` or `.xz`, a tar archive `.tar`, `.tar.gz` or `.tar.xz`. What is missing or is not what
the authors publish is a UserError, which says what to download.
"""
