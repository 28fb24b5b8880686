"""`python -m relish`, for `accelerate launch -m relish fit …`."""

from relish.cli.app import main

main()
