"""Makes the page of a run, a sweep or the question: `python scripts/report.py DIR`."""

from jaxmlp.commands.report import main

if __name__ == "__main__":
    main()
