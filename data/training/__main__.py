"""`python -m data.training`."""

from .make import main

if __name__ == "__main__":
    raise SystemExit(main())
