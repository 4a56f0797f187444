"""A small application that corrects mistyped words, without any model."""
