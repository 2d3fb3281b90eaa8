"""The command line: `foi edit`, `foi serve`, `foi doctor` and the rest. Starting it loads no torch."""
