"""`python -m foi_cli`: the same as `foi`."""

from foi_cli.main import app

if __name__ == "__main__":
    app(prog_name="foi")
