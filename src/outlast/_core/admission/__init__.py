"""Admission: whether work may come in, decided from memory, without input or output."""
