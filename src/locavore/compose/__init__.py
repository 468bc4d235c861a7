"""The only package that knows every part: it wires a supervisor and its workers."""
