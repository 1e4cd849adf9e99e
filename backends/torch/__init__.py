"""The torch backend: modules and exported programs in, rewritten modules out."""
