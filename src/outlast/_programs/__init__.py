"""Commands that work for any program in any language."""
