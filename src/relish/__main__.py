"""`python -m relish`, for `accelerate launch -m relish fit …`."""

from relish.cli.main import program

program()
