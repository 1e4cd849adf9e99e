"""The GPU backend: operators of torch whose functions are the library's expressions, in Triton."""
