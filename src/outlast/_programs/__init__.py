"""What works for any program in any language."""
